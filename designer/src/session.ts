/**
 * Signing in: an authorization code with PKCE (RFC 7636) from this server's own sign-in page.
 *
 * Tokens are kept in the memory of this tab (sessionStorage), so that reloading does not ask for the password again.
 * They never stand in an address.
 */

const CLIENT_ID = "The query designer";
const SCOPE = "query.read query.admin";
const TOKENS = "fieldsync.query.tokens";
const PENDING = "fieldsync.query.signing-in";
/** A token that ends within this time is renewed first, in milliseconds. */
const EARLY = 30_000;

interface Tokens {
  access: string;
  refresh: string;
  until: number;
}

interface Pending {
  state: string;
  verifier: string;
}

/** The sign-in is over; the text is for the person. */
export class SignedOut extends Error {}

let server: Promise<string> | undefined;
let renewing: Promise<Tokens> | undefined;

/** The public address of this server, as its settings say it: the one that sign-ins and exported links need. */
export function serverAddress(): Promise<string> {
  server ??= fetch("/.well-known/openid-configuration")
    .then((answer) => answer.json() as Promise<{ issuer: string }>)
    .then((found) => found.issuer)
    .catch((error: unknown) => {
      server = undefined;
      throw error;
    });
  return server;
}

export function isSignedIn(): boolean {
  return tokens() !== null;
}

export function signOut(): void {
  sessionStorage.removeItem(TOKENS);
}

/** Leave for the sign-in page. */
export async function signIn(): Promise<void> {
  const pending: Pending = { state: random(), verifier: random() };
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  const query = new URLSearchParams({
    response_type: "code",
    client_id: CLIENT_ID,
    redirect_uri: `${await serverAddress()}/query`,
    scope: SCOPE,
    state: pending.state,
    code_challenge: await challenge(pending.verifier),
    code_challenge_method: "S256",
  });
  location.assign(`/connect/authorize?${query}`);
}

/**
 * Take the answer of the sign-in page out of the address, and the tokens for it.
 *
 * @returns what to tell the person, if signing in did not work.
 */
export async function comeBack(): Promise<string | null> {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("code") && !answer.has("error")) return null;
  history.replaceState(null, "", location.pathname);
  const kept = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  const pending = kept === null ? null : (JSON.parse(kept) as Pending);
  const address = await serverAddress();
  // Anybody can make a browser open this address; only what this tab asked for is taken.
  if (pending === null || answer.get("state") !== pending.state || answer.get("iss") !== address) {
    return "This sign-in was not begun here. Sign in again.";
  }
  const error = answer.get("error");
  if (error === "invalid_scope") {
    return "Your account may not query. An owner of your team can give you the permission DATAVIEWER.";
  }
  if (error !== null) return answer.get("error_description") ?? "Signing in did not work.";
  try {
    await take({
      grant_type: "authorization_code",
      code: answer.get("code") ?? "",
      client_id: CLIENT_ID,
      redirect_uri: `${address}/query`,
      code_verifier: pending.verifier,
    });
    return null;
  } catch (failure) {
    return failure instanceof Error ? failure.message : String(failure);
  }
}

/**
 * A request with the token of the person who is signed in.
 *
 * @throws SignedOut when there is none, or it is not good any more.
 */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let held = tokens();
  if (held === null) throw new SignedOut("Sign in first.");
  if (held.until < Date.now() + EARLY) held = await renew(held);
  let answer = await send(path, init, held);
  if (answer.status === 401) {
    answer = await send(path, init, await renew(held));
    if (answer.status === 401) throw ended();
  }
  return answer;
}

function send(path: string, init: RequestInit, held: Tokens): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${held.access}`);
  return fetch(path, { ...init, headers, credentials: "omit", cache: "no-store" });
}

function tokens(): Tokens | null {
  const kept = sessionStorage.getItem(TOKENS);
  return kept === null ? null : (JSON.parse(kept) as Tokens);
}

/** New tokens for a refresh token, which is used up: requests that come meanwhile wait for the same ones. */
function renew(held: Tokens): Promise<Tokens> {
  renewing ??= take({ grant_type: "refresh_token", refresh_token: held.refresh }).finally(() => {
    renewing = undefined;
  });
  return renewing;
}

async function take(form: Record<string, string>): Promise<Tokens> {
  const answer = await fetch("/connect/token", {
    method: "POST",
    body: new URLSearchParams(form),
    credentials: "omit",
  });
  if (answer.status >= 500 || answer.status === 429) throw new Error("The server is busy. Try again in a moment.");
  if (!answer.ok) throw ended();
  const granted = (await answer.json()) as { access_token: string; refresh_token: string; expires_in: number };
  const held: Tokens = {
    access: granted.access_token,
    refresh: granted.refresh_token,
    until: Date.now() + granted.expires_in * 1000,
  };
  sessionStorage.setItem(TOKENS, JSON.stringify(held));
  return held;
}

function ended(): SignedOut {
  signOut();
  return new SignedOut("Your sign-in is over. Sign in again.");
}

function random(): string {
  return encoded(crypto.getRandomValues(new Uint8Array(32)));
}

async function challenge(verifier: string): Promise<string> {
  return encoded(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

/** Base64 for addresses, without padding. */
function encoded(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
