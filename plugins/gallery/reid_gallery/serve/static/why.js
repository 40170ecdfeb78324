// The dialog that shows why two pictures were found alike.

import { ask, tellRefusal } from "./asking.js";
import { face, putFile } from "./chosen.js";
import { element } from "./elements.js";

const one = (name) => document.getElementById(`why-${name}`);

export class Why {
  constructor(dialog, chosen, form) {
    this.dialog = dialog;
    this.chosen = chosen;
    this.form = form;
    one("view").addEventListener("change", () => this.explain(one("view").value));
    dialog.addEventListener("close", () => this.forget());
  }

  open(card) {
    this.card = card;
    this.item = this.chosen.named(card.dataset.query);
    this.ranking = this.form.elements.ranking?.value;
    const match = element("img", {
      src: card.querySelector("img").src,
      alt: `The match, from ${card.dataset.told}`,
    });
    one("pair").replaceChildren(...(this.item ? [face(this.item)] : []), match);
    one("views").hidden = true;
    this.dialog.showModal();
    if (this.item) this.explain("");
    else one("said").textContent = "The picture that was searched for is no longer on this page.";
  }

  async explain(view) {
    one("said").textContent = "Comparing the two pictures…";
    one("picture").hidden = true;
    this.running?.abort();
    const running = (this.running = new AbortController());
    try {
      const answer = await this.ask(view, running.signal);
      const content = await answer.blob();
      if (this.running === running) this.show(answer, content);
    } catch (error) {
      tellRefusal(error, (text) => (one("said").textContent = text));
    }
  }

  ask(view, signal) {
    const match = this.card.dataset.id;
    const asked = { match };
    if (this.ranking) asked.ranking = this.ranking;
    if (view) asked.view = view;
    if (this.item.id) {
      const words = new URLSearchParams({ query: this.item.id, ...asked });
      return ask(`/v1/explain?${words}`, { signal });
    }
    const data = putFile(new FormData(), this.item);
    for (const name in asked) data.append(name, asked[name]);
    data.append("csrf_token", this.form.elements.csrf_token.value);
    return ask("/v1/explain", { method: "POST", body: data, signal });
  }

  show(answer, content) {
    this.release();
    this.url = URL.createObjectURL(content);
    const views = JSON.parse(answer.headers.get("x-views"));
    const chosen = JSON.parse(answer.headers.get("x-view"));
    const options = views.map((value) => element("option", { value, textContent: value }));
    one("view").replaceChildren(...options);
    one("view").value = chosen;
    one("views").hidden = views.length < 2;
    one("picture").src = this.url;
    one("picture").alt = `Your picture beside the match from ${this.card.dataset.told}: ${chosen}`;
    one("picture").hidden = false;
    one("said").textContent = "Here is what counted.";
  }

  forget() {
    this.running?.abort();
    this.running = null;
    this.release();
  }

  release() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = "";
  }
}
