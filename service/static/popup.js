// A panel that a button opens. Escape, a click elsewhere, or leaving it with Tab closes it.

export class Popup {
  #button;
  #panel;

  /** `button` and `panel` have one parent element: the panel closes when the focus leaves that. */
  constructor(button, panel) {
    this.#button = button;
    this.#panel = panel;
    const holder = button.parentElement;
    button.addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    holder.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isOpen) return;
      event.preventDefault();
      this.close();
      button.focus();
    });
    holder.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !holder.contains(event.relatedTarget)) this.close();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!holder.contains(event.target)) this.close();
    });
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  open() {
    this.#panel.hidden = false;
    this.#button.setAttribute("aria-expanded", "true");
  }

  close() {
    this.#panel.hidden = true;
    this.#button.setAttribute("aria-expanded", "false");
  }
}
