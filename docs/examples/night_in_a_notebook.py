"""A night in a notebook: from the display's address to answers, cell by cell.

Run as it stands: ``python docs/examples/night_in_a_notebook.py http://localhost:8080``; or paste the cells (``# %%``).
"""

# %% Where the display is
import sys

from astropy.table import Table

from rapid.client_tables import RapidData, as_frame

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"
data = RapidData(url)

# %% Which nights there are; the newest of them
nights = data.nights()
day_obs = int(nights["day_obs"][0])
night = data.night(day_obs)
print(f"{day_obs}: {len(night)} exposures, {len(night.colnames)} columns")

# %% Seeing by filter. What was not measured is masked, and takes no part
seeing = "psf_fwhm_arcsec_median"
science = night[night["image_type"] == "science"]
measured = science[~science[seeing].mask] if seeing in night.colnames else science[:0]
for group in measured.group_by("physical_filter").groups if len(measured) else []:
    values = group[seeing].quantity
    print(f"  {group['physical_filter'][0]}: {len(group)} exposures, {values.min():.2f} to {values.max():.2f}")

# %% The worst of them: is it one detector, or all?
if len(measured):
    worst = measured[measured[seeing].argmax()]
    detectors = data.exposure(int(worst["exposure_id"]))
    fwhm = detectors["psf_fwhm_arcsec"].quantity
    print(f"worst: {worst['seq_num']}, {fwhm.min():.2f} to {fwhm.max():.2f} over {len(detectors)} detectors")
    for row in detectors[detectors["state"] != "finished"]:
        print(f"  {row['name']} {row['state']}: {row['reason']}")

    # %% Down to amps
    amps: Table = data.amps(int(worst["exposure_id"]), int(detectors["detector"][0]))
    if "read_noise_electron" in amps.colnames:
        noise = amps["read_noise_electron"]
        print(f"read noise of {amps.meta['name']}: {noise.min():.2f} to {noise.max():.2f} {noise.unit}")

# %% Focus through the night, and what people wrote
for row in data.focus(day_obs):
    print(f"  focus from {row['kind']} at {row['seq_num']}: {row['focus_offset_um']:.1f} um")
for row in data.log(day_obs):
    print(f"  {row['author']}: {row['text']}")

# %% The same for pandas, if it is installed
frame = as_frame(night)
print(frame.groupby("image_type").size().to_string())
