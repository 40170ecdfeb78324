// The two sliders of time: the first stays before the second, and each tells its time.

export class Times {
  constructor(form, changed) {
    this.after = form.elements.after;
    this.before = form.elements.before;
    if (!this.after) return;
    for (const slider of [this.after, this.before]) {
      slider.addEventListener("input", () => this.moved(slider));
      slider.addEventListener("change", changed);
      this.tell(slider);
    }
  }

  moved(slider) {
    const step = Number(slider.step);
    const [after, before] = [Number(this.after.value), Number(this.before.value)];
    if (after >= before && slider === this.after) this.after.value = before - step;
    if (after >= before && slider === this.before) this.before.value = after + step;
    this.tell(slider);
  }

  tell(slider) {
    const text = clock(Number(slider.value));
    document.getElementById(`${slider.id}-told`).textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }
}

// As `clock` of sightings.py.
function clock(seconds) {
  if (seconds < 1e8) {
    const whole = Math.trunc(Math.abs(seconds));
    const two = (number) => String(number).padStart(2, "0");
    const sign = seconds < 0 ? "-" : "";
    return `${sign}${Math.trunc(whole / 3600)}:${two(Math.trunc(whole / 60) % 60)}:${two(whole % 60)}`;
  }
  const moment = new Date(seconds * 1000);
  if (Number.isNaN(moment.getTime())) return `${seconds.toFixed(0)} s`;
  const month = moment.toLocaleString("en", { month: "short", timeZone: "UTC" });
  const time = moment.toISOString().slice(11, 19);
  return `${moment.getUTCDate()} ${month} ${moment.getUTCFullYear()}, ${time}`;
}
