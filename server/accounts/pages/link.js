(() => {
  const take = () => {
    const code = location.hash.slice(1);
    if (!code) return;
    history.replaceState(null, "", location.pathname);
    document.getElementById("token").value = code;
    document.getElementById("token-row").hidden = true;
  };
  addEventListener("hashchange", take);
  take();
})();
