// Finding and making elements.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text nodes, null is left out. */
export function el(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}
