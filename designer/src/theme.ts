import { useGraphiQLActions, useMonaco } from "@graphiql/react";
import { TabFocus } from "monaco-editor/esm/vs/editor/browser/config/tabFocus.js";
import { useEffect } from "react";

/** Names of the editor's colours by day and by night. */
export const THEMES = { light: "fieldsync-light", dark: "fieldsync-dark" };

const FONT = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace';

// Tab leads to the next control, as everywhere: whoever has only a keyboard must be able to leave an editor.
TabFocus.setTabFocusMode(true);

/** What our editors have that GraphiQL's have not: Tab gets into them, and a font that is there. */
export const EDITOR_OPTIONS = {
  fontFamily: FONT,
  fontSize: 14,
  tabIndex: 0,
  autoSurround: "never",
  wordWrap: "on",
  lineNumbersMinChars: 3,
  fixedOverflowWidgets: true,
} as const;

/** Defines the colours before the editors are made, and follows the system when it changes. */
export function Theme() {
  const monaco = useMonaco((state) => state.monaco);
  const { setTheme } = useGraphiQLActions();
  useEffect(() => {
    if (!monaco) return;
    for (const dark of [false, true]) {
      const accent = dark ? "#7db4ff" : "#0b5fc0";
      const card = dark ? "#1c222b" : "#ffffff";
      monaco.editor.defineTheme(dark ? THEMES.dark : THEMES.light, {
        base: dark ? "vs-dark" : "vs",
        inherit: true,
        rules: [{ token: "argument.identifier.gql", foreground: dark ? "b8a9ff" : "5b4bb5" }],
        colors: {
          "editor.background": card,
          "editorHoverWidget.background": card,
          "editorSuggestWidget.background": card,
          "editorWidget.background": card,
          "editorLineNumber.foreground": dark ? "#8d97a5" : "#6b7583",
          "scrollbar.shadow": "#00000000",
          focusBorder: accent,
          "textLink.foreground": accent,
          "list.highlightForeground": accent,
          "list.focusHighlightForeground": accent,
          "editorSuggestWidget.selectedBackground": dark ? "#2d3a4d" : "#dbe8fa",
          "editorSuggestWidget.selectedForeground": dark ? "#e9edf3" : "#1c2430",
          "editorSuggestWidget.selectedIconForeground": accent,
        },
      });
    }
    setTheme(null);
    const night = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => setTheme(null);
    night.addEventListener("change", follow);
    return () => night.removeEventListener("change", follow);
  }, [monaco, setTheme]);
  return null;
}
