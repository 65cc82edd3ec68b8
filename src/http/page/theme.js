// Before the first paint: the colours that were chosen, or the system's.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem('projector.theme'); } catch { /* storage may be closed to us */ }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
})();
