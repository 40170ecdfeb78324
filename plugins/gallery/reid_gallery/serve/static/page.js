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
    this.kept = [this.chosen.items];
    history.replaceState({ place: 0 }, "");
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
      if (event.state) this.back(event.state.place);
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
    this.kept.length = history.state.place + 1;
    this.kept[history.state.place] = this.chosen.items;
    history.pushState({ place: this.kept.length }, "", `/?id=${card.dataset.id}`);
    const { id, told, identity } = card.dataset;
    this.chosen.take([{ id, told: `From ${told}`, name: identity }]);
    this.kept.push(this.chosen.items);
    this.search(true);
  }

  back(place) {
    if (!this.kept[place]) return location.reload();
    this.chosen.take(this.kept[place]);
    if (this.chosen.items.length) this.search(false);
    else location.assign("/");
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
