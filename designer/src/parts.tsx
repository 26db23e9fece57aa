import { useEffect, useId, useRef, useState, type ReactNode } from "react";

/** A dialog over the page. The browser keeps the focus in it, and Escape closes it. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={heading} onClose={onClose}>
      <header className="bar">
        <h2 id={heading}>{title}</h2>
        <button className="quiet" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </header>
      <div className="content">{children}</div>
    </dialog>
  );
}

/** Copies a text and says so. */
export function Copy({ text, what, disabled }: { text: string; what: string; disabled?: boolean }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (said === "") return;
    const timer = setTimeout(() => setSaid(""), 3_000);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setSaid("Copied"),
      () => setSaid("The browser does not allow copying"),
    );
  return (
    <>
      <button disabled={disabled} aria-label={`Copy ${what}`} onClick={() => void copy()}>
        {said === "Copied" ? "Copied" : "Copy"}
      </button>
      <span className="unseen" role="status">
        {said}
      </span>
    </>
  );
}

interface Choice<T extends string> {
  value: T;
  label: string;
  disabled?: boolean;
}

/** One of a few, as buttons in a row. */
export function Choices<T extends string>({
  label,
  choices,
  chosen,
  onChoose,
}: {
  label: string;
  choices: readonly Choice<T>[];
  chosen: T;
  onChoose: (value: T) => void;
}) {
  const name = useId();
  return (
    <fieldset className="choices">
      <legend>{label}</legend>
      {choices.map(({ value, label: text, disabled }) => (
        <label key={value}>
          <input
            type="radio"
            name={name}
            value={value}
            checked={value === chosen}
            disabled={disabled}
            onChange={() => onChoose(value)}
          />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}
