// Arrow keys, Home and End among pictures that stand in rows.

/** The picture that a key leads to from the one that has the focus; undefined: none; null: the key means nothing. */
export function pictureByKey(key, shots, current) {
  const index = shots.indexOf(current);
  switch (key) {
    case "ArrowRight":
      return shots[index + 1];
    case "ArrowLeft":
      return shots[index - 1];
    case "ArrowDown":
      return nearestInNextRow(current, shots.slice(index + 1));
    case "ArrowUp":
      return nearestInNextRow(current, shots.slice(0, index).toReversed());
    case "Home":
      return shots[0];
    case "End":
      return shots.at(-1);
    default:
      return null;
  }
}

/** Of the pictures after one, in one direction: that of the next row that is nearest to it. */
function nearestInNextRow(shot, others) {
  const { top, left } = shot.getBoundingClientRect();
  const boxes = others.map((other) => ({ other, box: other.getBoundingClientRect() }));
  const first = boxes.find(({ box }) => Math.abs(box.top - top) > 2);
  const row = boxes.filter(({ box }) => first && Math.abs(box.top - first.box.top) <= 2);
  const distance = ({ box }) => Math.abs(box.left - left);
  return row.reduce((best, each) => (distance(each) < distance(best) ? each : best), row[0])?.other;
}
