// A page that was opened as a file cannot load its modules: say so. This is a script that it can load.

if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("stage-message").textContent =
      "Browsers do not run this page as a file. Publish its folder on a web server, or run " +
      "“python -m http.server” in it and open “localhost:8000”.";
  });
}
