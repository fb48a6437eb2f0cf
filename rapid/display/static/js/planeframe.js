// The choice under a focal plane's head: the camera's own frame, or as on the sky with azimuth to the right and altitude up.

const UNKNOWN = "The headers do not tell where the zenith is";
const NOTHING = "There is no exposure to turn";

export class PlaneFrame {
  /** @param onChange is called with the frame's name once somebody has chosen it. */
  constructor(box, plane, { frame = "camera", onChange = () => {} } = {}) {
    Object.assign(this, { plane, frame: frame === "altaz" ? frame : "camera", row: null });
    this.buttons = [...box.querySelectorAll("button[data-frame]")];
    for (const button of this.buttons) {
      button.addEventListener("click", () => {
        this.frame = button.dataset.frame;
        this.show(this.row);
        onChange(this.frame);
      });
    }
  }

  /** Turn the plane for an exposure, if that is asked for and can be: the wish outlives an exposure that does not tell. */
  show(row) {
    this.row = row;
    const zenith = row?.zenith_deg ?? null;
    const isTurned = this.frame === "altaz" && zenith !== null;
    for (const button of this.buttons) {
      const isAltaz = button.dataset.frame === "altaz";
      button.disabled = isAltaz && zenith === null;
      button.title = button.disabled ? (row ? UNKNOWN : NOTHING) : "";
      button.setAttribute("aria-pressed", String(isAltaz === isTurned));
    }
    this.plane.setZenith(isTurned ? zenith : null);
  }
}
