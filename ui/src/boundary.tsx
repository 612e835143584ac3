// What a page throws while it is drawn is shown in its place; the rest of the page goes on.

import { Component, type ComponentChildren } from 'preact';
import { Problem } from './parts';

export class Boundary extends Component<{ children: ComponentChildren }, { error: unknown }> {
  override state = { error: null as unknown };

  override componentDidCatch(error: unknown): void {
    this.setState({ error });
    console.error(error);
  }

  override render() {
    const { error } = this.state;
    if (error === null) return this.props.children;
    return (
      <div class="page">
        <Problem error={new Error(`The page could not draw this: ${error instanceof Error ? error.message : String(error)}`)}
          retry={() => this.setState({ error: null })} />
      </div>
    );
  }
}
