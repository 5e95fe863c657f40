// The code drawer: a dialog, so that Escape, focus and screen readers work as they should.

const drawer = document.querySelector("#code");

document.querySelector("[data-opens=code]")?.addEventListener("click", () => drawer.showModal());
// A click on the backdrop counts as one on the dialog itself.
drawer?.addEventListener("click", (event) => {
  if (event.target === drawer) drawer.close();
});
