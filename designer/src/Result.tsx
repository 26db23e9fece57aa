import { ResponseEditor, useGraphiQL } from "@graphiql/react";
import { useEffect, useMemo } from "react";
import type { Outcome } from "./Designer";
import { rowsOf } from "./csv";
import type { Format } from "./exporting";
import { Choices } from "./parts";
import { Table } from "./Table";
import { EDITOR_OPTIONS } from "./theme";

const FORMATS = [
  { value: "json", label: "JSON" },
  { value: "csv", label: "CSV" },
] as const;

export function Result({
  format,
  onFormat,
  outcome,
  problems,
  running,
  live,
  onLive,
}: {
  format: Format;
  onFormat: (format: Format) => void;
  outcome: Outcome | null;
  problems: string[];
  running: boolean;
  live: boolean;
  onLive: (live: boolean) => void;
}) {
  const responseEditor = useGraphiQL((state) => state.responseEditor);
  useEffect(() => {
    responseEditor?.updateOptions({ ...EDITOR_OPTIONS, ariaLabel: "Result as JSON" });
  }, [responseEditor]);
  const answer = outcome?.answer;
  const told = problems.length > 0 ? problems : (answer?.messages ?? []);
  // What is shown then is the answer to the query before.
  const stale = problems.length > 0 ? " stale" : "";
  const count = useMemo(() => counted(outcome), [outcome]);
  return (
    <section className="pane result" aria-labelledby="result-heading">
      <div className="bar">
        <h2 id="result-heading">Result</h2>
        <p className="soft" role="status">
          {running ? "Running…" : told.length > 0 ? "" : count}
        </p>
        <div className="row">
          <label className="check">
            <input type="checkbox" checked={live} onChange={(event) => onLive(event.target.checked)} />
            Run as I type
          </label>
          <button
            disabled={answer === undefined || answer.kind === "refused"}
            onClick={() => answer && save(answer.text, answer.kind === "csv" ? "csv" : "json")}
          >
            Save
          </button>
          <Choices label="Format" choices={FORMATS} chosen={format} onChoose={onFormat} />
        </div>
      </div>
      <div role="status" aria-label="Problems">
        {told.length > 0 && (
          <ul className="alert problems">
            {told.map((text, at) => (
              <li key={at}>{text}</li>
            ))}
          </ul>
        )}
      </div>
      {/* Always there: GraphiQL runs nothing without it. */}
      <div className={`graphiql-container editor${stale}`} hidden={answer?.kind === "csv" || answer?.kind === "refused"}>
        <ResponseEditor tabIndex={-1} />
      </div>
      {answer?.kind === "csv" && <Table text={answer.text} className={stale} />}
    </section>
  );
}

/** How much came, and how long it took. */
function counted(outcome: Outcome | null): string {
  if (outcome === null || outcome.answer.kind === "refused") return "";
  const { answer, milliseconds } = outcome;
  const number =
    answer.kind === "csv"
      ? Math.max(rowsOf(answer.text).length - 1, 0)
      : Object.values((answer.value as { data?: object | null }).data ?? {})
          .filter(Array.isArray)
          .reduce((sum: number, list: unknown[]) => sum + list.length, 0);
  const what = answer.kind === "csv" ? "row" : "object";
  return `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}, ${Math.round(milliseconds).toLocaleString()} ms`;
}

function save(text: string, ending: "csv" | "json"): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: ending === "csv" ? "text/csv" : "application/json" }));
  link.download = `query.${ending}`;
  link.click();
  URL.revokeObjectURL(link.href);
}
