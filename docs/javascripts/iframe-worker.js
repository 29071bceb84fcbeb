// Browsers start no worker for a page that is read from a disk (file://), and the search is one. Here its script runs in a hidden
// frame. The theme's offline plugin takes this file in the place of its own, which would come from a network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.begun = new Promise((begin, fail) => {
        this.frame.addEventListener("load", () => {
          const inside = this.frame.contentWindow
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
          const script = inside.document.createElement("script")
          script.addEventListener("load", () => begin(inside))
          script.addEventListener("error", fail)
          script.src = url
          inside.document.head.append(script)
        }, { once: true })
      })
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.begun.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
