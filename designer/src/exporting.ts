import { stripIgnoredCharacters } from "graphql";

export type Format = "json" | "csv";

/** A query as it is executed. */
export interface Asked {
  query: string;
  variables?: Record<string, unknown> | undefined;
  operationName?: string | undefined;
}

const PATH = "/query/v2/graph";

/** The address that answers the query when it is opened. */
export function getAddress(server: string, asked: Asked, format: Format, key: string | null): string {
  return address(server, format, key, {
    query: shortened(asked.query),
    ...(asked.variables ? { variables: JSON.stringify(asked.variables) } : {}),
    ...(asked.operationName ? { operationName: asked.operationName } : {}),
  });
}

/** The address and the body of the same as a POST. */
export function postRequest(
  server: string,
  asked: Asked,
  format: Format,
  key: string | null,
): { address: string; body: string } {
  return { address: address(server, format, key, {}), body: JSON.stringify(asked, null, 2) };
}

function address(server: string, format: Format, key: string | null, parameters: Record<string, string>): string {
  const all = { ...parameters, ...(format === "csv" ? { csv: "true" } : {}), ...(key === null ? {} : { key }) };
  // %20 and not +: some programs take a plus for itself.
  const query = Object.entries(all)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join("&");
  return `${server}${PATH}${query ? `?${query}` : ""}`;
}

/** Without comments and needless blanks. Text that cannot be read stays as it is. */
function shortened(query: string): string {
  try {
    return stripIgnoredCharacters(query);
  } catch {
    return query;
  }
}
