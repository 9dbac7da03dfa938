(() => {
  const bind = () => { for (const root of document.querySelectorAll('.rl-explorer:not([data-keys])')) {
    root.dataset.keys = '1'; root.dataset.lmSuppressShortcuts = 'true'; root.tabIndex = 0;  // JupyterLab leaves its keys alone here
    root.addEventListener('keydown', event => {
      const target = event.target, list = target.closest('.rl-list');
      if (event.ctrlKey || event.metaKey || event.altKey || target.matches('input, textarea, select') && !list) return;
      const on = ['n', 'ArrowRight', ...(list ? ['ArrowDown'] : [])], back = ['p', 'ArrowLeft', ...(list ? ['ArrowUp'] : [])];
      const name = on.includes(event.key) ? '.rl-next' : back.includes(event.key) ? '.rl-previous' : null;
      if (name) { event.preventDefault(); event.stopPropagation(); root.querySelector(name)?.click(); } }); } };
  for (const ms of [0, 300, 1000, 3000, 8000]) setTimeout(bind, ms);  // the widget is drawn after this runs
})()
