/// <reference types="vite/client" />

declare module "monaco-editor/esm/vs/editor/browser/config/tabFocus.js" {
  export const TabFocus: { setTabFocusMode(on: boolean): void };
}

/** What Monaco asks for its workers. */
declare var MonacoEnvironment: { getWorker(id: string, label: string): Worker };
