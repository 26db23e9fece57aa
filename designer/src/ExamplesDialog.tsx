import { EXAMPLES, type Example } from "./examples";
import { Dialog } from "./parts";

export function ExamplesDialog({ onChoose, onClose }: { onChoose: (example: Example) => void; onClose: () => void }) {
  return (
    <Dialog title="Examples" onClose={onClose}>
      <p className="soft">An example replaces the query in the editor. Ctrl+Z there brings the old one back.</p>
      <ul className="examples">
        {EXAMPLES.map((example) => (
          <li key={example.title}>
            <button onClick={() => onChoose(example)}>
              <strong>{example.title}</strong>
              <span>{example.hint}</span>
            </button>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
