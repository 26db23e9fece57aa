import { useEffect, useState } from "react";
import { readKeys, type Key, type Slot } from "./api";
import { getAddress, postRequest, type Asked, type Format } from "./exporting";
import { Choices, Copy, Dialog } from "./parts";
import { serverAddress, SignedOut } from "./session";

/** Beyond this, programs and proxies begin to cut addresses. */
const LONG = 8_000;

export function ExportDialog({
  asked,
  format,
  withKeys,
  onClose,
  onLeave,
}: {
  asked: Asked;
  format: Format;
  /** Whether the person may see the keys. */
  withKeys: boolean;
  onClose: () => void;
  onLeave: (message: string) => void;
}) {
  const [server, setServer] = useState<string | null>(null);
  const [keys, setKeys] = useState<Key[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const [method, setMethod] = useState<"GET" | "POST">("GET");
  const [slot, setSlot] = useState<Slot | "none">("none");

  useEffect(() => {
    void serverAddress().then(setServer);
  }, []);
  useEffect(() => {
    // It may be known only after the dialog was opened.
    if (!withKeys) return;
    readKeys().then(
      (found) => {
        setKeys(found);
        const first = found.find((one) => one.key !== null);
        if (first) setSlot(first.slot);
      },
      (error: unknown) => {
        if (error instanceof SignedOut) onLeave(error.message);
        else setProblem(error instanceof Error ? error.message : String(error));
      },
    );
  }, [withKeys]);

  const held = (wanted: Slot) => keys.find((one) => one.slot === wanted)?.key ?? null;
  const key = slot === "none" ? null : held(slot);
  const post = postRequest(server ?? "", asked, format, key);
  const address = method === "GET" ? getAddress(server ?? "", asked, format, key) : post.address;
  return (
    <Dialog title="Export" onClose={onClose}>
      <div className="row wide">
        <Choices
          label="As"
          choices={[
            { value: "GET", label: "HTTP GET" },
            { value: "POST", label: "HTTP POST" },
          ]}
          chosen={method}
          onChoose={setMethod}
        />
        {withKeys && (
          <Choices
            label="Key"
            choices={[
              { value: "primary", label: "Primary", disabled: held("primary") === null },
              { value: "secondary", label: "Secondary", disabled: held("secondary") === null },
              { value: "none", label: "None" },
            ]}
            chosen={slot}
            onChoose={setSlot}
          />
        )}
      </div>
      {problem !== null && <p className="soft">{problem} The export is made without a key.</p>}
      {server !== null && (
        <>
          <Exported what="address" text={address} lines={method === "GET" ? 8 : 3} />
          {method === "POST" && <Exported what="body" text={post.body} lines={8} />}
          {method === "GET" && (
            <p>
              <a href={address} target="_blank" rel="noreferrer">
                Open the address
              </a>
            </p>
          )}
          {address.length > LONG && (
            <p className="alert">
              This address has {address.length.toLocaleString()} characters, which is more than some programs take. Use
              HTTP POST.
            </p>
          )}
        </>
      )}
      <p className="soft">
        {format === "csv" ? "The answer is CSV" : "The answer is JSON"}, as chosen above the result.{" "}
        {method === "POST" && <>Send the body as Content-Type: application/json. </>}
        {key === null ? (
          <>Add key=… to the address, or send an access token: Authorization: Bearer ….</>
        ) : (
          <>Whoever has this address can query all jobs of your team.</>
        )}
      </p>
    </Dialog>
  );
}

function Exported({ what, text, lines }: { what: "address" | "body"; text: string; lines: number }) {
  const name = what === "address" ? "Address" : "Body";
  return (
    <div className="exported">
      <div className="bar">
        <label htmlFor={`exported-${what}`}>{name}</label>
        <Copy text={text} what={what} />
      </div>
      <textarea
        id={`exported-${what}`}
        className="code"
        readOnly
        rows={lines}
        value={text}
        onFocus={(event) => event.target.select()}
      />
    </div>
  );
}
