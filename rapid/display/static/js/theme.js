// Before first paint: the theme of last time.
try {
  document.documentElement.dataset.theme = localStorage.getItem("rapid.theme") ?? "dark";
} catch {
  document.documentElement.dataset.theme = "dark";
}
