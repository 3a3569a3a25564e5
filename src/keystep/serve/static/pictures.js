/** Pictures of a list, as they come into view, two at a time: a browser allows six connections, which others need too. */

const AT_ONCE = 2;

export class Pictures {
  #waiting = [];
  #loading = 0;
  #shown = new Set(); // addresses that the browser has

  /** Those within `root`, which scrolls. */
  constructor(root) {
    this.observer = new IntersectionObserver(entries => {
      for (const {target, isIntersecting} of entries) {
        this.#waiting = this.#waiting.filter(picture => picture !== target);
        if (isIntersecting) this.#waiting.push(target);
      }
      this.#next();
    }, {root, rootMargin: "200px 0px"});
  }

  /** Load a picture once it is in view. */
  add(picture, address) {
    if (this.#shown.has(address)) picture.src = address;
    else {
      picture.dataset.address = address;
      this.observer.observe(picture);
    }
    return picture;
  }

  /** Forget those that are not in the list any more. */
  clear() {
    this.observer.disconnect();
    this.#waiting = [];
  }

  #next() {
    while (this.#loading < AT_ONCE && this.#waiting.length) {
      const picture = this.#waiting.shift();
      const {address} = picture.dataset;
      this.observer.unobserve(picture);
      this.#loading++;
      picture.onload = picture.onerror = ({type}) => {
        if (type === "load") this.#shown.add(address);
        this.#loading--;
        this.#next();
      };
      picture.src = address;
    }
  }
}
