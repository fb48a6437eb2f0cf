"""Say in a FITS header how a product came to be: enough to repeat it without the results store."""

import json

from astropy.io import fits

from rapid.results.models import Provenance


def add_provenance(header: fits.Header, provenance: Provenance) -> None:
    """Add software, pipeline, configuration, calibs and checksums of raws to a header.

    Keys: ``SOFTVER``, ``PIPELINE`` (its version in the comment), ``CONFHASH``, ``RAWSHA``, ``CALIBS`` and ``PAYLOADS``
    (JSON objects), and of a combined product ``ISHnnnnn``, the checksum of the input of key ``INPnnnnn``.
    """
    header["SOFTVER"] = (provenance.software_version, "version of Rapid Analysis")
    header["PIPELINE"] = (provenance.pipeline, f"version {provenance.pipeline_version}")
    header["CONFHASH"] = provenance.config_hash  # 64 characters: a comment would not fit on the card
    header["RAWSHA"] = provenance.raw_sha256
    header["CALIBS"] = json.dumps(provenance.calibs, sort_keys=True)
    header["PAYLOADS"] = json.dumps(provenance.payloads, sort_keys=True)
    for place, exposure_id in enumerate(sorted(provenance.inputs), start=1):
        checksum = provenance.input_sha256.get(str(exposure_id))
        if checksum is not None:
            header[f"ISH{place:05d}"] = checksum
