// The few ways in which this page touches the document. Text is only ever set as text.

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function fromTemplate(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

// Run a drawing function once before the next frame, however often it is asked for.
export function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

export function setPill(pill, [family, words]) {
  pill.dataset.family = family;
  setText(pill, words);
}

export function setTags(container, tags) {
  const wanted = JSON.stringify(tags);
  if (container.dataset.shown === wanted) return;
  container.dataset.shown = wanted;
  const name = container.tagName === "UL" ? "li" : "span";
  container.replaceChildren(...tags.map((tag) => make(name, "tag", tag)));
}
