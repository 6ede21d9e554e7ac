// Gestures on the map's canvas: turns wheel and pointer events into pan, zoom, click and hover.

/** A pointer that moves less, in pixels, clicks. */
const CLICK_DISTANCE = 4;
const PIXELS_PER_LINE = 16;
const MAX_WHEEL_PIXELS = 240;
const WHEEL_SPEED = 0.0025;
/** Browsers report a pinch on a touchpad as a wheel event with the Ctrl key. */
const PINCH_SPEED = 0.01;

/** @typedef {import("./viewport.js").Position} Position */
/** @typedef {{ pan: (right: number, down: number) => void, zoom: (factor: number, position: Position) => void,
 *   press: () => void, click: (position: Position) => void, hover: (position: Position | null) => void }} Handlers
 *   `press`: a pointer goes down */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Handlers} handlers
 */
export function listenForGestures(canvas, handlers) {
  /** @type {Map<number, Position>} by pointer id */
  const pointers = new Map();
  /** @type {Position} */
  let start = [0, 0];
  let dragged = false;
  /** @type {(event: MouseEvent) => Position} */
  const positionOf = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  /** @param {WheelEvent} event */
  const wheel = (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? PIXELS_PER_LINE : 1);
    const limited = Math.min(MAX_WHEEL_PIXELS, Math.max(-MAX_WHEEL_PIXELS, pixels));
    handlers.zoom(Math.exp(-limited * (event.ctrlKey ? PINCH_SPEED : WHEEL_SPEED)), positionOf(event));
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    start = positionOf(event);
    pointers.set(event.pointerId, start);
    dragged = pointers.size > 1;
    canvas.setPointerCapture(event.pointerId);
    handlers.press();
  });
  canvas.addEventListener("pointermove", (event) => {
    const position = positionOf(event);
    const previous = pointers.get(event.pointerId);
    if (!previous) return handlers.hover(position);
    if (distance(position, start) > CLICK_DISTANCE) dragged = true;
    if (!dragged) return;
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    const [right, down] = [position[0] - previous[0], position[1] - previous[1]];
    if (others.length === 1) {
      const [other] = others;
      handlers.pan(right / 2, down / 2);
      const factor = (distance(position, other) || 1) / (distance(previous, other) || 1);
      handlers.zoom(factor, [(position[0] + other[0]) / 2, (position[1] + other[1]) / 2]);
    } else if (!others.length) handlers.pan(right, down);
    pointers.set(event.pointerId, position);
  });
  /** @param {PointerEvent} event */
  const release = (event) => pointers.delete(event.pointerId);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  // Not before the click event: after a tap, the browser would send it to the view that has opened under the finger.
  canvas.addEventListener("click", (event) => dragged || handlers.click(positionOf(event)));
  canvas.addEventListener("pointerleave", () => handlers.hover(null));
}

/** @type {(from: Position, to: Position) => number} */
const distance = (from, to) => Math.hypot(to[0] - from[0], to[1] - from[1]);
