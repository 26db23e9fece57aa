import type { Asked, Format } from "./exporting";
import { ask } from "./session";

/** What a query was answered. */
export type Answer =
  | { kind: "json"; value: object; text: string; messages: string[] }
  | { kind: "csv"; text: string; messages: string[] }
  | { kind: "refused"; messages: string[]; text: string };

export type Slot = "primary" | "secondary";

export interface Key {
  slot: Slot;
  /** Null if it was revoked, or cannot be shown. */
  key: string | null;
  created: string;
  /** Why a key that works cannot be shown. */
  problem: { detail: string } | null;
}

interface Told {
  message: string;
  locations?: readonly { line: number; column: number }[] | undefined;
}

export async function runQuery(asked: Asked, format: Format, signal?: AbortSignal): Promise<Answer> {
  const answer = await ask(`/query/v2/graph${format === "csv" ? "?csv=true" : ""}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
    signal: signal ?? null,
  });
  const text = await answer.text();
  if (answer.ok && answer.headers.get("Content-Type")?.startsWith("text/csv")) {
    const errors = Number(answer.headers.get("X-Fieldsync-Errors") ?? 0);
    return { kind: "csv", text, messages: errors > 0 ? ["Something went wrong. Switch to JSON to see what."] : [] };
  }
  const value = parsed(text) as { data?: unknown; errors?: Told[] } | null;
  if (!answer.ok || value === null || value.data === undefined) {
    return { kind: "refused", messages: messagesOf(value, answer.status), text };
  }
  return { kind: "json", value, text, messages: describe(value.errors ?? []) };
}

/** Whether the person may see the keys and change them; who may not is offered none. */
export async function mayManageKeys(): Promise<boolean> {
  return (await ask("/query/v2/keys")).status !== 403;
}

export async function readKeys(): Promise<Key[]> {
  return (await accepted(await ask("/query/v2/keys"))) as Key[];
}

export async function regenerateKey(slot: Slot): Promise<void> {
  await accepted(await ask(`/query/v2/keys/${slot}/regenerate`, { method: "POST" }));
}

export async function revokeKey(slot: Slot): Promise<void> {
  await accepted(await ask(`/query/v2/keys/${slot}`, { method: "DELETE" }));
}

/** What is wrong with a query, one line each. */
export function describe(errors: readonly Told[]): string[] {
  return errors.map(({ message, locations }) =>
    locations?.[0] ? `Line ${locations[0].line}, column ${locations[0].column}: ${message}` : message,
  );
}

async function accepted(answer: Response): Promise<unknown> {
  const value = parsed(await answer.text());
  if (answer.status === 403) {
    throw new Error("Only owners and administrators of the team can see the keys and change them.");
  }
  if (!answer.ok) throw new Error(messagesOf(value, answer.status).join(" "));
  return value;
}

function messagesOf(value: unknown, status: number): string[] {
  const told = value as { errors?: Told[]; detail?: string } | null;
  if (told?.errors?.length) return describe(told.errors);
  return [told?.detail ?? `The server answered ${status}.`];
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
