// The services that the store knows.

import { signal } from '@preact/signals';
import * as api from './api';
import { serviceColor } from './color';

export const services = signal<string[] | null>(null); // null: not known yet

export async function loadServices(): Promise<void> {
  try {
    const list = await api.services();
    for (const name of list) serviceColor(name);
    services.value = list;
  } catch {
    /* what the page itself asks for says what is wrong */
  }
}

/** Colours are given in the order of this list, so that two people who look at one store for the first time see the
 * same ones. Nobody waits long for that. */
export const colorsReady: Promise<void> = Promise.race([loadServices(), new Promise<void>((done) => setTimeout(done, 400))]);
