import { DocExplorer, useDocExplorer, useDocExplorerActions } from "@graphiql/plugin-doc-explorer";
import { QueryEditor, tryParseJSONC, useGraphiQL, useGraphiQLActions, VariableEditor } from "@graphiql/react";
import { useEffect, useRef, useState } from "react";
import { mayManageKeys } from "./api";
import type { Outcome } from "./Designer";
import type { Example } from "./examples";
import { ExamplesDialog } from "./ExamplesDialog";
import { ExportDialog } from "./ExportDialog";
import type { Asked, Format } from "./exporting";
import { KeysDialog } from "./KeysDialog";
import { useLivePreview } from "./live";
import { Result } from "./Result";
import { SignedOut } from "./session";
import { EDITOR_OPTIONS, Theme } from "./theme";

type Editor = NonNullable<ReturnType<typeof useEditors>["queryEditor"]>;

function useEditors() {
  return useGraphiQL(({ queryEditor, variableEditor, operationName }) => ({
    queryEditor,
    variableEditor,
    operationName,
  }));
}

/** The page of somebody who is signed in. */
export function Workbench({
  format,
  onFormat,
  outcome,
  running,
  onLeave,
}: {
  format: Format;
  onFormat: (format: Format) => void;
  outcome: Outcome | null;
  running: boolean;
  onLeave: (message: string | null) => void;
}) {
  const { queryEditor, variableEditor, operationName } = useEditors();
  const { run, prettifyEditors } = useGraphiQLActions();
  const [open, setOpen] = useState<"examples" | "export" | "keys" | null>(null);
  const [withKeys, setWithKeys] = useState(false);
  const [docs, setDocs] = useState(false);
  const [variables, setVariables] = useState(false);
  const [live, setLive] = useState(true);
  const problems = useLivePreview(live, outcome);

  useEffect(() => {
    mayManageKeys().then(setWithKeys, (error: unknown) => {
      if (error instanceof SignedOut) onLeave(error.message);
      // The dialog says what is wrong.
      else setWithKeys(true);
    });
  }, []);
  useEffect(() => {
    queryEditor?.updateOptions({ ...EDITOR_OPTIONS, ariaLabel: "Query" });
  }, [queryEditor]);
  useEffect(() => {
    variableEditor?.updateOptions({ ...EDITOR_OPTIONS, ariaLabel: "Variables" });
    if (variableEditor?.getValue().trim()) setVariables(true);
  }, [variableEditor]);

  const close = () => setOpen(null);
  const asked = (): Asked => {
    let values: Asked["variables"];
    try {
      values = tryParseJSONC(variableEditor?.getValue() ?? "") as Asked["variables"];
    } catch {
      // The editor marks what is wrong with them; the export is of the query then.
    }
    return { query: queryEditor?.getValue() ?? "", variables: values, operationName: operationName || undefined };
  };
  const take = (example: Example) => {
    close();
    if (queryEditor) replace(queryEditor, example.query);
    if (variableEditor) replace(variableEditor, example.variables ?? "");
    setVariables(example.variables !== undefined);
    void run();
    queryEditor?.focus();
  };
  const change = (value: Format) => {
    onFormat(value);
    void run();
  };

  return (
    <div className={`designer${docs ? " with-docs" : ""}`}>
      <header className="top">
        <div className="name">
          <p className="brand">Fieldsync</p>
          <h1>Query designer</h1>
        </div>
        <div className="row" role="group" aria-label="Tools">
          <button onClick={() => setOpen("examples")}>Examples</button>
          <button onClick={() => setOpen("export")}>Export</button>
          {withKeys && <button onClick={() => setOpen("keys")}>Keys</button>}
          <button aria-expanded={docs} aria-controls="documentation" onClick={() => setDocs(!docs)}>
            Documentation
          </button>
          <button className="quiet" onClick={() => onLeave(null)}>
            Sign out
          </button>
        </div>
      </header>
      <main className="panes">
        <Theme />
        <section className="pane query" aria-labelledby="query-heading">
          <div className="bar">
            <h2 id="query-heading">Query</h2>
            <div className="row">
              <button onClick={() => void prettifyEditors()}>Tidy</button>
              <button className="primary" title="Ctrl+Enter in the editor" onClick={() => void run()}>
                Run
              </button>
            </div>
          </div>
          <div className="graphiql-container editor">
            <QueryEditor tabIndex={-1} onClickReference={() => setDocs(true)} />
          </div>
          <details
            className="variables"
            open={variables}
            onToggle={(event) => setVariables((event.target as HTMLDetailsElement).open)}
          >
            <summary>Variables</summary>
            <div className="graphiql-container editor">
              <VariableEditor tabIndex={-1} />
            </div>
          </details>
        </section>
        <Result
          format={format}
          onFormat={change}
          outcome={outcome}
          problems={problems}
          running={running}
          live={live}
          onLive={setLive}
        />
        {docs && <Documentation onClose={() => setDocs(false)} />}
      </main>
      {open === "examples" && <ExamplesDialog onChoose={take} onClose={close} />}
      {open === "export" && (
        <ExportDialog asked={asked()} format={format} withKeys={withKeys} onClose={close} onLeave={onLeave} />
      )}
      {open === "keys" && <KeysDialog onClose={close} onLeave={onLeave} />}
    </div>
  );
}

function Documentation({ onClose }: { onClose: () => void }) {
  const schema = useGraphiQL((state) => state.schema);
  const visited = useDocExplorer().length;
  const { push } = useDocExplorerActions();
  const panel = useRef<HTMLElement>(null);
  // What can be asked for is a better beginning than the list of all types.
  useEffect(() => {
    const root = schema?.getQueryType();
    if (root && visited === 1) push({ name: root.name, def: root });
  }, [schema]);
  // On a phone it opens below everything else.
  useEffect(() => {
    void panel.current?.scrollIntoView({ block: "nearest" });
  }, []);
  return (
    <aside id="documentation" ref={panel} className="pane docs" aria-label="Documentation">
      <div className="bar">
        <h2>Documentation</h2>
        <button className="quiet" onClick={onClose}>
          Close
        </button>
      </div>
      <div className="graphiql-container explorer">
        <DocExplorer />
      </div>
    </aside>
  );
}

/** Another text, which undoing takes back. */
function replace(editor: Editor, text: string): void {
  const model = editor.getModel();
  if (model === null) return;
  editor.pushUndoStop();
  editor.executeEdits("example", [{ range: model.getFullModelRange(), text }]);
  editor.pushUndoStop();
  editor.setPosition({ lineNumber: 1, column: 1 });
}
