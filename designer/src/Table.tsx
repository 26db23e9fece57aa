import { useMemo } from "react";
import { rowsOf } from "./csv";

/** More rows than this would make the page slow; the answer itself has them all. */
const SHOWN = 500;

/** CSV as a table. */
export function Table({ text, className }: { text: string; className: string }) {
  const [head = [], ...rows] = useMemo(() => rowsOf(text), [text]);
  if (rows.length === 0) {
    return (
      <p className="soft empty">
        There are no rows. If you expected some, switch to JSON: errors are shown only there.
      </p>
    );
  }
  return (
    <div className={`table${className}`} tabIndex={0} role="region" aria-label="Result as a table">
      <table>
        <thead>
          <tr>
            {head.map((name, at) => (
              <th key={at} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, SHOWN).map((row, at) => (
            <tr key={at}>
              {row.map((cell, column) => (
                <td key={column}>{/^https?:\/\/\S+$/.test(cell) ? <Link to={cell} /> : cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > SHOWN && (
        <p className="soft">
          {SHOWN} of {rows.length.toLocaleString()} rows are shown.
        </p>
      )}
    </div>
  );
}

function Link({ to }: { to: string }) {
  return (
    <a href={to} target="_blank" rel="noreferrer">
      {to}
    </a>
  );
}
