// Asks the service, and tells people what it refuses, in sentences.

export class Refused extends Error {}

// Gives the answer. Throws Refused, with a sentence for people.
export async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer. Try again in a moment.");
  }
  if (!answer.ok) throw new Refused(await sentence(answer));
  return answer;
}

// Says what was refused; nothing of what was given up for something newer. Faults go on.
export function tellRefusal(error, say) {
  if (error instanceof Refused) say(error.message);
  else if (error.name !== "AbortError") throw error;
}

async function sentence(answer) {
  if (answer.status === 401) return "Your time here has ended. Load the page again and enter your token.";
  if (answer.status === 429) return "That was too much at once. Wait a moment, then try again.";
  const kind = answer.headers.get("content-type") || "";
  const text = await answer.text();
  if (kind.startsWith("text/html")) return parsed(text).getElementById("problem").textContent;
  const detail = kind.includes("json") ? JSON.parse(text).detail : "";
  if (!detail) return "Something went wrong. Try again in a moment.";
  return detail[0].toUpperCase() + detail.slice(1) + (/[.!?]$/.test(detail) ? "" : ".");
}

export function parsed(html) {
  return new DOMParser().parseFromString(html, "text/html");
}
