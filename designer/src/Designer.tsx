import { DocExplorerStore, DOC_EXPLORER_PLUGIN } from "@graphiql/plugin-doc-explorer";
import "@graphiql/plugin-doc-explorer/style.css";
import { GraphiQLProvider } from "@graphiql/react";
import "@graphiql/react/style.css";
import { useMemo, useRef, useState } from "react";
import { runQuery, type Answer } from "./api";
import { FIRST } from "./examples";
import type { Asked, Format } from "./exporting";
import { SignedOut } from "./session";
import { THEMES } from "./theme";
import "./workers";
import { Workbench } from "./Workbench";

const FORMAT = "fieldsync.query.format";

/** What the result shows. */
export interface Outcome {
  answer: Answer;
  asked: Asked;
  milliseconds: number;
}

export default function Designer({ onLeave }: { onLeave: (message: string | null) => void }) {
  const [format, setFormat] = useState<Format>(() => (localStorage.getItem(FORMAT) === "csv" ? "csv" : "json"));
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [running, setRunning] = useState(false);
  const wanted = useRef(format);
  const current = useRef<AbortController | null>(null);

  const choose = (value: Format) => {
    wanted.current = value;
    localStorage.setItem(FORMAT, value);
    setFormat(value);
  };

  // GraphiQL calls it for the schema and for every run; what it answers is put into the editor of the result.
  const fetcher = useMemo(
    () => async (asked: { query: string; variables?: unknown; operationName?: string | null }) => {
      const { query } = asked;
      if (asked.operationName === "IntrospectionQuery") {
        try {
          const answer = await runQuery({ query }, "json");
          if (answer.kind === "refused") throw new Error(answer.messages.join(" "));
          return answer.kind === "json" ? answer.value : {};
        } catch (error) {
          if (error instanceof SignedOut) onLeave(error.message);
          throw error;
        }
      }
      current.current?.abort();
      const own = new AbortController();
      current.current = own;
      const sent: Asked = {
        query,
        variables: (asked.variables ?? undefined) as Asked["variables"],
        operationName: asked.operationName ?? undefined,
      };
      const began = performance.now();
      setRunning(true);
      try {
        const answer = await runQuery(sent, wanted.current, own.signal);
        setOutcome({ answer, asked: sent, milliseconds: performance.now() - began });
        return answer.kind === "json" ? answer.value : {};
      } catch (error) {
        if (own.signal.aborted) return {};
        if (error instanceof SignedOut) onLeave(error.message);
        else {
          const messages = ["The server cannot be reached. Try again in a moment."];
          const answer: Answer = { kind: "refused", messages, text: "" };
          setOutcome({ answer, asked: sent, milliseconds: performance.now() - began });
        }
        return {};
      } finally {
        if (current.current === own) setRunning(false);
      }
    },
    [],
  );

  return (
    <GraphiQLProvider
      fetcher={fetcher}
      defaultQuery={FIRST}
      editorTheme={THEMES}
      plugins={PLUGINS}
      referencePlugin={DOC_EXPLORER_PLUGIN}
    >
      <DocExplorerStore>
        <Workbench
          format={format}
          onFormat={choose}
          outcome={outcome}
          running={running}
          onLeave={onLeave}
        />
      </DocExplorerStore>
    </GraphiQLProvider>
  );
}

const PLUGINS = [DOC_EXPLORER_PLUGIN];
