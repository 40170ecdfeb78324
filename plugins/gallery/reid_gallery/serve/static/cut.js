// The dialog in which a box is drawn around a person: with a pointer, or by typing its four sides.

const SIDES = ["left", "top", "right", "bottom"];
const one = (name) => document.getElementById(`cut-${name}`);

export class Cut {
  constructor(dialog) {
    this.dialog = dialog;
    this.area = one("area");
    this.inputs = SIDES.map(one);
    this.area.addEventListener("pointerdown", (event) => this.begin(event));
    this.area.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.area.addEventListener(name, () => (this.corner = null));
    }
    for (const input of this.inputs) input.addEventListener("input", () => this.draw());
    one("form").addEventListener("submit", (event) => this.check(event));
    dialog.addEventListener("close", () => this.done?.());
  }

  // Gives the box, null for the whole picture, undefined if nothing is to change.
  ask(item) {
    const { naturalWidth: width, naturalHeight: height } = item.image;
    this.size = [width, height, width, height];
    one("picture").src = item.url;
    // As large as fits, small pictures too, and never out of shape.
    Object.assign(this.area.style, {
      aspectRatio: `${width} / ${height}`,
      width: `min(100%, ${(42 * width) / height}dvh)`,
    });
    this.inputs.forEach((input, side) => {
      input.min = 0;
      input.max = this.size[side];
    });
    this.put(item.box || [0, 0, width, height]);
    one("said").textContent = "";
    this.dialog.returnValue = "cancel";
    this.dialog.showModal();
    return new Promise((resolve) => {
      this.done = () => {
        const whole = this.box().every((value, side) => value === (side < 2 ? 0 : this.size[side]));
        const use = this.dialog.returnValue === "use" && !whole;
        resolve(use ? this.box() : this.dialog.returnValue === "cancel" ? undefined : null);
      };
    });
  }

  box() {
    return this.inputs.map((input) => input.valueAsNumber);
  }

  put(box) {
    this.inputs.forEach((input, side) => (input.value = box[side]));
    this.draw();
  }

  // The place of a pointer in the picture's own dots.
  at(event) {
    const shown = this.area.getBoundingClientRect();
    const place = [
      ((event.clientX - shown.left) / shown.width) * this.size[0],
      ((event.clientY - shown.top) / shown.height) * this.size[1],
    ];
    return place.map((value, axis) => Math.min(this.size[axis], Math.max(0, Math.round(value))));
  }

  begin(event) {
    if (event.button) return;
    event.preventDefault();
    this.area.setPointerCapture(event.pointerId);
    this.corner = this.at(event);
  }

  drag(event) {
    if (!this.corner) return;
    const [x, y] = this.at(event);
    const [left, top] = this.corner;
    const box = [Math.min(x, left), Math.min(y, top), Math.max(x, left), Math.max(y, top)];
    if (box[2] > box[0] && box[3] > box[1]) this.put(box);
  }

  draw() {
    const box = this.box();
    const part = this.size.map((length, side) => (100 * box[side]) / length);
    one("box").hidden = !this.fits();
    Object.assign(one("box").style, {
      left: `${part[0]}%`,
      top: `${part[1]}%`,
      width: `${part[2] - part[0]}%`,
      height: `${part[3] - part[1]}%`,
    });
  }

  fits() {
    const [left, top, right, bottom] = this.box();
    return left < right && top < bottom;
  }

  check(event) {
    if (event.submitter?.value !== "use" || this.fits()) return;
    event.preventDefault();
    one("said").textContent = "Left must be less than right, and top less than bottom.";
    this.inputs[0].focus();
  }
}
