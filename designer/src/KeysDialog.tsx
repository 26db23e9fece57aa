import { useEffect, useRef, useState } from "react";
import { readKeys, regenerateKey, revokeKey, type Key, type Slot } from "./api";
import { Copy, Dialog } from "./parts";
import { SignedOut } from "./session";

type Change = { slot: Slot; what: "regenerate" | "revoke" };

const NAMES: Record<Slot, string> = { primary: "Primary key", secondary: "Secondary key" };

export function KeysDialog({ onClose, onLeave }: { onClose: () => void; onLeave: (message: string) => void }) {
  const [keys, setKeys] = useState<Key[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [asked, setAsked] = useState<Change | null>(null);
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState("");

  const attempt = async (work: () => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await work();
    } catch (error) {
      if (error instanceof SignedOut) onLeave(error.message);
      else setProblem(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  const load = async () => setKeys(await readKeys());
  useEffect(() => {
    void attempt(load);
  }, []);

  const change = ({ slot, what }: Change) =>
    attempt(async () => {
      await (what === "revoke" ? revokeKey(slot) : regenerateKey(slot));
      setAsked(null);
      await load();
      setDone(what === "revoke" ? `${NAMES[slot]} revoked.` : `There is a new ${NAMES[slot].toLowerCase()}.`);
    });

  return (
    <Dialog title="Keys" onClose={onClose}>
      <p>
        Whoever has one of these keys can query all jobs of your team, without signing in. Use the primary key in your
        links, and the secondary one while you replace it.
      </p>
      {problem !== null && (
        <div className="alert" role="alert">
          {problem}
        </div>
      )}
      {keys === null && problem === null && <p className="soft">Loading…</p>}
      {keys?.map((key) => (
        <OneKey
          key={`${key.slot} ${key.key}`}
          held={key}
          busy={busy}
          asked={asked?.slot === key.slot ? asked.what : null}
          onAsk={(what) => setAsked(what === null ? null : { slot: key.slot, what })}
          onChange={(what) => void change({ slot: key.slot, what })}
        />
      ))}
      <p className="soft" role="status">
        {done}
      </p>
    </Dialog>
  );
}

function OneKey({
  held,
  busy,
  asked,
  onAsk,
  onChange,
}: {
  held: Key;
  busy: boolean;
  asked: Change["what"] | null;
  onAsk: (what: Change["what"] | null) => void;
  onChange: (what: Change["what"]) => void;
}) {
  const [shown, setShown] = useState(false);
  const name = NAMES[held.slot];
  const lower = name.toLowerCase();
  if (held.key === null) {
    return (
      <section className="key" aria-label={name}>
        <h3>{name}</h3>
        <p className="soft">{held.problem?.detail ?? "There is none: it was revoked."}</p>
        <div className="row">
          {asked === null && (
            <button
              disabled={busy}
              onClick={() => (held.problem === null ? onChange("regenerate") : onAsk("regenerate"))}
            >
              Make a new {lower}
            </button>
          )}
        </div>
        {asked !== null && (
          <Confirm name={lower} what={asked} busy={busy} onCancel={() => onAsk(null)} onDo={() => onChange(asked)} />
        )}
      </section>
    );
  }
  return (
    <section className="key" aria-label={name}>
      <h3>{name}</h3>
      <div className="row">
        <input
          aria-label={name}
          className="code"
          readOnly
          value={shown ? held.key : "•".repeat(24)}
          onFocus={(event) => shown && event.target.select()}
        />
        <button aria-label={`${shown ? "Hide" : "Show"} ${lower}`} onClick={() => setShown(!shown)}>
          {shown ? "Hide" : "Show"}
        </button>
        <Copy text={held.key} what={lower} />
      </div>
      {asked === null ? (
        <div className="row">
          <button disabled={busy} aria-label={`Regenerate ${lower}`} onClick={() => onAsk("regenerate")}>
            Regenerate…
          </button>
          <button disabled={busy} aria-label={`Revoke ${lower}`} onClick={() => onAsk("revoke")}>
            Revoke…
          </button>
          <span className="soft">made {new Date(held.created).toLocaleString()}</span>
        </div>
      ) : (
        <Confirm name={lower} what={asked} busy={busy} onCancel={() => onAsk(null)} onDo={() => onChange(asked)} />
      )}
    </section>
  );
}

function Confirm({
  name,
  what,
  busy,
  onCancel,
  onDo,
}: {
  name: string;
  what: Change["what"];
  busy: boolean;
  onCancel: () => void;
  onDo: () => void;
}) {
  const cancel = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    cancel.current?.focus();
  }, []);
  return (
    <div className="alert" role="alert">
      <p>
        {what === "revoke" ? `Revoke the ${name}?` : `Replace the ${name} by a new one?`} Links and programs that use
        the old key stop working at once. This cannot be undone.
      </p>
      <div className="row">
        <button className="danger" disabled={busy} onClick={onDo}>
          {what === "revoke" ? "Revoke it" : "Regenerate it"}
        </button>
        <button ref={cancel} disabled={busy} onClick={onCancel}>
          Cancel
        </button>
      </div>
    </div>
  );
}
