import { lazy, Suspense, useEffect, useState } from "react";
import { comeBack, isSignedIn, serverAddress, signIn, signOut } from "./session";

// The editor is large: nobody waits for it to sign in.
const Designer = lazy(() => import("./Designer"));

type State = { at: "starting" } | { at: "out"; message: string | null } | { at: "in" };

// Once, however often the page is rendered: a code is good for one exchange.
const returned = comeBack().catch(() => "The server cannot be reached. Try again in a moment.");

export function App() {
  const [state, setState] = useState<State>({ at: "starting" });
  useEffect(() => {
    void returned.then((message) => setState(isSignedIn() ? { at: "in" } : { at: "out", message }));
  }, []);
  const leave = (message: string | null) => {
    signOut();
    setState({ at: "out", message });
  };
  if (state.at === "starting") return <p className="waiting">Loading…</p>;
  if (state.at === "out") return <Welcome message={state.message} />;
  return (
    <Suspense fallback={<p className="waiting">Loading the editor…</p>}>
      <Designer onLeave={leave} />
    </Suspense>
  );
}

function Welcome({ message }: { message: string | null }) {
  const [address, setAddress] = useState<string | null>(null);
  const [problem, setProblem] = useState(message);
  useEffect(() => {
    serverAddress().then(setAddress, () => setProblem("The server cannot be reached. Try again in a moment."));
  }, []);
  const elsewhere = address !== null && new URL(address).origin !== location.origin;
  return (
    <main className="welcome">
      <p className="brand">Fieldsync</p>
      <h1>Query designer</h1>
      <p>Ask for the jobs, people and plans of your team, as JSON or as a table, and take the query with you as a link.</p>
      {problem !== null && (
        <div className="alert" role="alert">
          {problem}
        </div>
      )}
      {elsewhere ? (
        <p>
          Sign in at the address of this server: <a href={`${address}/query`}>{address}/query</a>
        </p>
      ) : window.isSecureContext ? (
        <button
          className="primary"
          disabled={address === null}
          onClick={() => void signIn().catch(() => setProblem("The server cannot be reached. Try again in a moment."))}
        >
          Sign in
        </button>
      ) : (
        <p>Browsers allow signing in here only with https, or on the server itself at http://localhost.</p>
      )}
      <p className="soft">
        With a key and without signing in, there is <a href="/query/plain">a plain form</a>.
      </p>
    </main>
  );
}
