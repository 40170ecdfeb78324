// The pictures that are searched for: files of this computer, and pictures of the gallery.
// An item is { file, url, image, box } or { id, told, name }; a box is [left, top, right, bottom].

import { Cut } from "./cut.js";
import { element } from "./elements.js";

export class Chosen {
  constructor(list, limits, complain) {
    this.list = list;
    this.limits = limits;
    this.complain = complain;
    this.cut = new Cut(document.getElementById("cut"));
    this.items = [...list.children].map((row) => ({ ...row.dataset }));
    this.searched = this.items;
    this.show();
  }

  take(items) {
    this.items = items;
    this.show();
  }

  // Adds files that are pictures; tells what is wrong with the others.
  async add(files) {
    const given = [...files]; // the list itself is emptied while pictures are opened
    const faults = [];
    for (const file of given) {
      const fault = this.fault(file);
      const item = fault ? null : await opened(file);
      if (item) this.items = [...this.items, item];
      else faults.push(fault || `“${file.name}” is damaged, or no picture.`);
    }
    this.complain(faults.join(" "));
    this.show();
    if (given.length > faults.length) document.getElementById("search").focus();
  }

  fault(file) {
    const known = this.limits.formats.map((one) => `image/${one.toLowerCase()}`);
    if (!known.includes(file.type)) {
      return `“${file.name}” is not a picture that can be read here. Use ${this.limits.formats.join(", ")}.`;
    }
    if (file.size > this.limits.picture_bytes) {
      const most = Math.floor(this.limits.picture_bytes / 2 ** 20);
      return `“${file.name}” is too large: a picture may have ${most} MB.`;
    }
    if (this.items.length >= this.limits.pictures) {
      return `“${file.name}” is left out: there may be ${this.limits.pictures} pictures at once.`;
    }
    return "";
  }

  // Puts the pictures into a form's data, in place of what its fields hold.
  into(data) {
    for (const name of ["picture", "box", "id"]) data.delete(name);
    for (const item of this.items) {
      if (item.id) data.append("id", item.id);
      else putFile(data, item);
    }
    return data;
  }

  // The item of the last search that its answer names: "picture 2" is the second file, "row 17" a picture's number.
  named(name) {
    const [kind, number] = name.split(" ");
    if (kind === "row") return this.searched.find((item) => item.id === number);
    return this.searched.filter((item) => item.file)[Number(number) - 1];
  }

  show() {
    this.list.replaceChildren(...this.items.map((item) => this.row(item)));
  }

  row(item) {
    const name = item.file ? item.file.name : item.told;
    const remove = button("Remove", `Remove ${name}`, () => {
      this.take(this.items.filter((other) => other !== item));
      document.getElementById("picture").focus();
    });
    const beside = element("div", {}, element("p", { textContent: name }));
    if (item.file) {
      const cut = button("Cut out person", `Cut the person out of ${name}`, async () => {
        const box = await this.cut.ask(item);
        if (box !== undefined) this.replace(item, { ...item, box });
      });
      beside.append(cut);
    }
    beside.append(remove);
    return element("li", {}, face(item), beside);
  }

  replace(old, item) {
    const place = this.items.indexOf(old);
    this.take(this.items.map((other) => (other === old ? item : other)));
    this.list.children[place].querySelector("button").focus();
  }
}

export function putFile(data, item) {
  data.append("picture", item.file, "picture");
  data.append("box", item.box ? item.box.join(" ") : "");
  return data;
}

// What an item looks like; alt says which of several it is.
export function face(item) {
  if (item.id) {
    const alt = `The picture that is searched for. ${item.told}`;
    return element("img", { src: `/v1/pictures/${item.id}/thumbnail?height=320`, alt });
  }
  const alt = `${item.file.name}${item.box ? ", cut to the person" : ""}`;
  if (!item.box) return element("img", { src: item.url, alt });
  const [left, top, right, bottom] = item.box;
  const [width, height] = [right - left, bottom - top];
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage(item.image, left, top, width, height, 0, 0, width, height);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", alt);
  return canvas;
}

async function opened(file) {
  const url = URL.createObjectURL(file);
  const image = element("img", { src: url });
  try {
    await image.decode();
    return { file, url, image, box: null };
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

function button(text, label, work) {
  const made = element("button", { type: "button", textContent: text });
  made.setAttribute("aria-label", label);
  made.addEventListener("click", work);
  return made;
}
