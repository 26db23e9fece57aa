import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { GraphQLError, parse, validate, type GraphQLSchema } from "graphql";
import { useEffect, useRef, useState } from "react";
import { describe } from "./api";
import type { Outcome } from "./Designer";

/** How long nothing must be typed before the query is run, in milliseconds. */
const PAUSE = 800;

/**
 * Runs the query when it has changed and nothing more is typed, if it is one.
 *
 * @returns what is wrong with the text in the editor, one line each; such a text is not sent.
 */
export function useLivePreview(live: boolean, outcome: Outcome | null): string[] {
  const { queryEditor, variableEditor, responseEditor, schema } = useGraphiQL(
    ({ queryEditor, variableEditor, responseEditor, schema }) => ({
      queryEditor,
      variableEditor,
      responseEditor,
      schema,
    }),
  );
  const { run } = useGraphiQLActions();
  const [problems, setProblems] = useState<string[]>([]);
  const last = useRef<string | null>(null);

  // What was run by hand needs no preview.
  useEffect(() => {
    if (outcome !== null) last.current = outcome.asked.query;
  }, [outcome]);

  useEffect(() => {
    if (!queryEditor || !responseEditor || !schema) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = (values: boolean) => {
      const text = queryEditor.getValue();
      const found = problemsOf(text, schema);
      setProblems(found);
      if (live && found.length === 0 && (values || text !== last.current)) {
        last.current = text;
        void run();
      }
    };
    const soon = (values: boolean) => () => {
      clearTimeout(timer);
      timer = setTimeout(() => look(values), PAUSE);
    };
    look(false);
    const listening = [
      queryEditor.onDidChangeModelContent(soon(false)),
      variableEditor?.onDidChangeModelContent(soon(true)),
    ];
    return () => {
      clearTimeout(timer);
      for (const one of listening) one?.dispose();
    };
  }, [queryEditor, variableEditor, responseEditor, schema, live, run]);
  return problems;
}

function problemsOf(text: string, schema: GraphQLSchema): string[] {
  if (text.replace(/#.*/g, "").trim() === "") return ["Write a query, or choose an example."];
  try {
    return describe(validate(schema, parse(text), undefined, { maxErrors: 10 }));
  } catch (error) {
    return describe([error as GraphQLError]);
  }
}
