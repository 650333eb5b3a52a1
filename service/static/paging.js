// Further pages: loaded when the end of what is shown comes into view, or by a button.

export class Paging {
  #button;
  #problem;
  #load;
  #isLoading = false;
  #isByButton = false;
  #isStopped = true;
  #observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !this.#isStopped) this.#go();
  });

  /**
   * `load(isByButton)` loads the page that follows and calls `show`, or throws a problem, which `problem` shows.
   * `isByButton()` tells then whether the focus is on the button, and has to go on to what was loaded.
   */
  constructor(button, problem, load) {
    this.#button = button;
    this.#problem = problem;
    this.#load = load;
    button.addEventListener("click", () => {
      this.#isByButton = true;
      this.#go();
    });
  }

  /** Another list is shown, or the same with more: `hasMore` pages; `byScrolling`: they may follow without a click. */
  show({ hasMore, byScrolling = true }) {
    this.#problem.textContent = "";
    this.#button.hidden = !hasMore;
    this.#isStopped = !hasMore || !byScrolling;
    // Looking anew tells at once whether the end is in view still.
    this.#observer.unobserve(this.#button);
    if (!this.#isStopped) this.#observer.observe(this.#button);
  }

  async #go() {
    if (this.#isLoading) return;
    this.#isLoading = true;
    this.#problem.textContent = "";
    try {
      await this.#load(() => this.#isByButton || document.activeElement === this.#button);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#problem.textContent = problem.message;
      this.#isStopped = true;
    } finally {
      this.#isLoading = false;
      this.#isByButton = false;
    }
  }
}
