// Marks of matches: right names the match as the person that is searched for, wrong takes that name
// away if the match has it. Pressing the same mark again takes it back.

import { ask, tellRefusal } from "./asking.js";

export class Marks {
  constructor(chosen, tell, complain) {
    this.chosen = chosen;
    this.tell = tell;
    this.complain = complain;
    // By card: the pictures that were named with it, and their names of before.
    this.earlier = new WeakMap();
    this.token = document.querySelector("meta[name=csrf-token]").content;
  }

  async mark(card, mark) {
    const name = document.getElementById("name").value.trim();
    const back = card.classList.contains(mark);
    if (mark === "right" && !back && !name) {
      document.getElementById("name").focus();
      return this.complain("Give this person a name first.");
    }
    if (this.busy) return;
    this.busy = true;
    try {
      await this.undo(card);
      const told = back ? "The mark was taken back." : await this.set(card, mark, name);
      this.tell(told);
    } catch (error) {
      tellRefusal(error, this.complain);
    } finally {
      this.busy = false;
    }
  }

  // Gives what was done, in words.
  async set(card, mark, name) {
    const match = { id: card.dataset.id, name: card.dataset.identity };
    const where = `the picture from ${card.dataset.told}`;
    if (mark === "right") {
      // The picture that was searched for shows the same person.
      const nameless = this.chosen.searched.filter((item) => item.id && !item.name);
      const before = [match, ...nameless.map(({ id }) => ({ id, name: "" }))];
      await this.label(card, before.map(({ id }) => id), name);
      this.earlier.set(card, before);
      look(card, mark);
      return `Marked as right: ${where} is now named ${name}.`;
    }
    const had = Boolean(match.name) && match.name === name;
    if (had) await this.label(card, [match.id], "");
    this.earlier.set(card, had ? [match] : []);
    look(card, mark);
    const named = had ? `is no longer named ${name}` : "did not have this name";
    return `Marked as wrong: ${where} ${named}.`;
  }

  async undo(card) {
    for (const { id, name } of this.earlier.get(card) || []) await this.label(card, [id], name);
    this.earlier.delete(card);
    look(card, "");
  }

  // Names pictures, "" for none, and shows the name on the card.
  async label(card, ids, name) {
    await ask("/v1/label", {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": this.token },
      // As text, since ids may have more digits than a number of this language.
      body: `{"ids": [${ids.join(", ")}], "identity": ${JSON.stringify(name)}}`,
    });
    for (const item of this.chosen.searched) if (ids.includes(item.id)) item.name = name;
    if (!ids.includes(card.dataset.id)) return;
    card.dataset.identity = name;
    card.querySelector(".identity").hidden = !name;
    card.querySelector(".identity b").textContent = name;
  }
}

function look(card, mark) {
  const dot = document.querySelector(`[data-dot="${card.dataset.id}"]`);
  for (const one of ["right", "wrong"]) {
    card.classList.toggle(one, one === mark);
    dot?.classList.toggle(one, one === mark);
    card.querySelector(`[data-do=${one}]`).setAttribute("aria-pressed", one === mark);
  }
}
