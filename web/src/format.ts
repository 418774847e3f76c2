// Numbers and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const NUMBER = new Intl.NumberFormat("en");

export function bytes(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const text = unit === 0 ? String(Math.round(size)) : Number(size.toPrecision(digits)).toString();
  return `${value < 0 ? "−" : ""}${text} ${UNITS[unit]}`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : NUMBER.format(value);
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Bytes a minute: a leak is felt in minutes. */
export function rate(bytesPerSecond: number | null): string {
  if (bytesPerSecond === null) return "–";
  const sign = bytesPerSecond > 0 ? "+" : "";
  return `${sign}${bytes(bytesPerSecond * 60, 2)}/min`;
}

export function clock(unixSeconds: number, withSeconds = false): string {
  const options: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) options.second = "2-digit";
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB", options);
}

/** The time alone for today, with the date otherwise. */
export function moment(rfc3339: string): string {
  const date = new Date(rfc3339);
  if (Number.isNaN(date.getTime())) return rfc3339;
  const time = clock(date.getTime() / 1000, true);
  return date.toDateString() === new Date().toDateString() ? time : `${date.toISOString().slice(0, 10)} ${time}`;
}

export function ago(rfc3339: string | null): string {
  if (!rfc3339) return "never";
  const seconds = (Date.now() - new Date(rfc3339).getTime()) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/** `client_leak` → `client leak` */
export function words(label: string): string {
  return label.replaceAll("_", " ");
}
