// The page without which it is a plain form: pictures dropped and pasted, results that come without
// a new page, boxes, explanations, marks. All texts are set as text, never as HTML.

import { ask, parsed, tellRefusal } from "./asking.js";
import { Chosen } from "./chosen.js";
import { Times } from "./times.js";
import { Marks } from "./marks.js";
import { Why } from "./why.js";

const one = (name) => document.getElementById(name);
const form = one("ask");
document.documentElement.classList.add("scripts");

let telling = 0;

// quiet: it is also seen elsewhere on the page.
function tell(text, quiet = false) {
  one("problem").hidden = true;
  one("status").textContent = text;
  one("status").classList.toggle("quiet", quiet);
  clearTimeout(telling);
  if (!quiet) telling = setTimeout(() => (one("status").textContent = ""), 10_000);
}

function complain(text) {
  one("status").textContent = "";
  one("problem").textContent = text;
  one("problem").hidden = !text;
}

class Page {
  constructor() {
    this.chosen = new Chosen(one("chosen"), JSON.parse(form.dataset.limits), complain);
    this.times = new Times(form, () => this.again());
    this.marks = new Marks(this.chosen, tell, complain);
    this.why = new Why(one("why"), this.chosen, form);
    // Pictures by their place in the browser's history, in which links within the page stand too.
    this.kept = [this.chosen.items];
    this.place = 0;
    this.loaded = performance.timeOrigin;
    history.replaceState(this.state(), "");
    this.listen();
  }

  listen() {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(true);
    });
    form.addEventListener("change", (event) => {
      if (event.target.id === "picture") {
        this.chosen.add(event.target.files);
        event.target.value = "";
      } else if (!event.target.matches("[type=range]")) {
        this.again();
      }
    });
    one("results").addEventListener("click", (event) => {
      const card = event.target.closest(".card");
      const what = event.target.closest("[data-do], a.picture");
      if (!card || !what || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (what.matches("a")) {
        event.preventDefault();
        this.searchOn(card);
      } else if (what.dataset.do === "why") {
        this.why.open(card);
      } else {
        this.marks.mark(card, what.dataset.do);
      }
    });
    addEventListener("popstate", (event) => {
      if (event.state) this.back(event.state);
    });
    addEventListener("hashchange", () => {
      if (!history.state) history.replaceState(this.state(), "");
    });
    this.listenForPictures();
  }

  listenForPictures() {
    const whole = document.documentElement;
    addEventListener("dragover", (event) => {
      event.preventDefault();
      whole.classList.add("dragging");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) whole.classList.remove("dragging");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      whole.classList.remove("dragging");
      if (!document.querySelector("dialog[open]")) this.chosen.add(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.chosen.add(event.clipboardData.files);
    });
  }

  searchOn(card) {
    const { id, told, identity } = card.dataset;
    this.kept[this.place] = this.chosen.items;
    this.place += 1;
    history.pushState(this.state(), "", `/?id=${id}`);
    this.chosen.take([{ id, told: `From ${told}`, name: identity }]);
    this.kept[this.place] = this.chosen.items;
    this.search(true);
  }

  state() {
    return { place: this.place, loaded: this.loaded };
  }

  back({ place, loaded }) {
    if (loaded !== this.loaded) return location.reload(); // its pictures are known no more
    if (place === this.place) return;
    this.kept[this.place] = this.chosen.items;
    this.place = place;
    this.chosen.take(this.kept[place]);
    this.again();
  }

  // Another search by what was changed, if there was one.
  again() {
    if (one("summary") && this.chosen.items.length) this.search(false);
  }

  async search(go) {
    if (!this.chosen.items.length) {
      one("picture").focus();
      return complain("Choose a picture of the person first.");
    }
    this.running?.abort();
    const running = (this.running = new AbortController());
    this.wait(true);
    tell("Searching…", true);
    const items = this.chosen.items;
    try {
      const data = this.chosen.into(new FormData(form));
      const answer = await ask("/", { method: "POST", body: data, signal: running.signal });
      this.show(parsed(await answer.text()).getElementById("results"), go);
      this.chosen.searched = items;
    } catch (error) {
      tellRefusal(error, complain);
    } finally {
      if (this.running === running) this.wait(false);
    }
  }

  wait(busy) {
    one("busy").hidden = !busy;
    one("results").classList.toggle("waiting", busy);
    one("results").setAttribute("aria-busy", busy);
  }

  show(results, go) {
    const name = go ? null : one("name")?.value;
    one("results").replaceChildren(...results.childNodes);
    if (name && one("name")) one("name").value = name;
    tell(one("summary").textContent, true);
    if (!go) return;
    one("results").focus({ preventScroll: true });
    one("results").scrollIntoView();
  }
}

if (form) new Page();
