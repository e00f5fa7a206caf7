// The page's script: takes in what the server tells, and shows it. Whatever comes from an object is put in as text, never as
// markup. Of each thing that is shown there is one element, which is changed in place: an event touches what it is about.
"use strict";

const SIGNS = { ready: "✓", reconciling: "◐", stalled: "✕", unknown: "?" };
const WORDS = { ready: "Ready", reconciling: "Reconciling", stalled: "Stalled", unknown: "Unknown" };
// Devices that are bound to nothing have a card of their own; no DPU is called so.
const UNBOUND = "~unbound";
// The server is heard every 15 s at least.
const SILENCE_MS = 40000;
const RETRY_MS = 3000;
const HITS_AT_MOST = 100;

// ---- What is known ----

const dpus = new Map(); // by name
const devices = new Map(); // by namespace/name
const devicesOf = new Map(); // by the name of a DPU: the keys of its devices
const texts = new Map(); // by the key of a device: what it is found by

const dpuOf = (device) => device.dpu ?? UNBOUND;

function searchText(parts) {
  return parts.filter((part) => part).join(" ").toLowerCase();
}

function putDevice(key, device) {
  const before = devices.get(key);
  const touched = new Set();
  if (before) {
    const name = dpuOf(before);
    devicesOf.get(name).delete(key);
    if (devicesOf.get(name).size === 0) devicesOf.delete(name);
    touched.add(name);
  }
  if (device === null) {
    devices.delete(key);
    texts.delete(key);
    return touched;
  }
  const name = dpuOf(device);
  devices.set(key, device);
  if (!devicesOf.has(name)) devicesOf.set(name, new Set());
  devicesOf.get(name).add(key);
  const { bdf, mac, vuid } = device.function;
  texts.set(key, searchText([key, bdf, mac, vuid, device.representor?.name]));
  return touched.add(name);
}

// ---- Small tools ----

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

function text(tag, className, words) {
  const node = element(tag, className);
  node.textContent = words;
  return node;
}

function stateLabel(state, words = WORDS[state]) {
  const node = element("span", "state");
  const sign = text("span", "", `${SIGNS[state]} `);
  sign.setAttribute("aria-hidden", "true");
  node.dataset.state = state;
  node.append(sign, words);
  return node;
}

function facts(...entries) {
  const node = element("div", "facts");
  for (const [words, title, className] of entries) {
    if (!words) continue;
    const fact = text("span", className ?? "code", words);
    if (title) fact.title = title;
    node.append(fact);
  }
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

/// Makes the children of a list these, and moves only those that stand elsewhere.
function arrange(parent, wanted) {
  let at = parent.firstChild;
  for (const node of wanted) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const natural = new Intl.Collator("en", { numeric: true }).compare;

// ---- Cards ----

const cards = new Map(); // by the name of a DPU: its list item

function fleetNames() {
  const names = new Set([...dpus.keys(), ...devicesOf.keys()]);
  names.delete(UNBOUND);
  const sorted = [...names].sort(natural);
  // Last, for it is no DPU.
  if (devicesOf.has(UNBOUND)) sorted.push(UNBOUND);
  return sorted;
}

function isShown(name) {
  return dpus.has(name) || devicesOf.has(name);
}

function hashOf(name, key) {
  const parts = key === undefined ? [name] : [name, ...key.split("/")];
  return `#${parts.map(encodeURIComponent).join("/")}`;
}

/// How a DPU stands, one that has no object too.
function standingOf(name) {
  const dpu = dpus.get(name);
  if (dpu) return dpu;
  if (name !== UNBOUND) return { state: "unknown", reason: "NoDpu", message: "There is no Dpu of this name." };
  const stands = [...devicesOf.get(name)].map((key) => devices.get(key).state);
  const state = ["stalled", "reconciling"].find((state) => stands.includes(state)) ?? "unknown";
  return { state, message: "Devices that are bound to no DPU." };
}

function counted(name) {
  const counts = { ready: 0, reconciling: 0, stalled: 0, unknown: 0 };
  for (const key of devicesOf.get(name) ?? []) counts[devices.get(key).state] += 1;
  return counts;
}

function useRow(words, { used, all }) {
  const meter = element("meter");
  meter.max = Math.max(all, used, 1);
  meter.value = used;
  meter.setAttribute("aria-hidden", "true");
  const value = text("dd", "", `${used}/${all}`);
  value.dataset.use = words;
  return element("div", "use", text("dt", "", words), element("dd", "", meter), value);
}

function plainRow(words, value) {
  const shown = text("dd", "wide", value);
  shown.dataset.use = words;
  return element("div", "use", text("dt", "", words), shown);
}

function drawCard(name) {
  const dpu = dpus.get(name);
  const { state, reason, message } = standingOf(name);
  const link = element("a", "card");
  link.href = hashOf(name);
  link.dataset.state = state;
  link.dataset.dpu = name;
  if (name === selected.dpu) link.setAttribute("aria-current", "true");
  const list = element("dl");
  if (dpu) {
    list.append(useRow("Slots", dpu.slots), useRow("VFs", dpu.vfs));
    for (const [port, use] of dpu.sfs) list.append(useRow(`SFs ${port}`, use));
  }
  const counts = counted(name);
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const others = ["reconciling", "stalled", "unknown"].filter((state) => counts[state] > 0);
  const told = others.map((state) => `, ${counts[state]} ${WORDS[state]}`).join("");
  list.append(plainRow("Devices", `${counts.ready}/${all} Ready${told}`));
  if (dpu) list.append(plainRow("Undeclared", String(dpu.undeclared?.length ?? 0)));
  link.append(text("div", "name", name === UNBOUND ? "Unbound devices" : name));
  const words = reason && reason !== WORDS[state] ? `${WORDS[state]}: ${reason}` : WORDS[state];
  link.append(stateLabel(state, words));
  if (message && state !== "ready") link.append(text("div", "why", message));
  for (const note of dpu?.notes ?? []) link.append(text("div", "why", note));
  if (dpu?.deleting) link.append(text("div", "why", "It is being deleted."));
  link.append(list);
  return link;
}

function showCards(touched) {
  for (const name of touched) {
    if (!isShown(name)) {
      cards.delete(name);
      continue;
    }
    const card = drawCard(name);
    const item = cards.get(name);
    if (!item) {
      cards.set(name, element("li", "", card));
    } else if (!item.firstChild.isEqualNode(card)) {
      const hadFocus = item.contains(document.activeElement);
      item.replaceChildren(card);
      if (hadFocus) card.focus();
    }
  }
  // Beside the picture of one the cards of the others would only be in the way, on a phone above all.
  const names = selected.dpu === undefined ? fleetNames() : [selected.dpu].filter(isShown);
  byId("back").hidden = selected.dpu === undefined;
  byId("fleet-title").classList.toggle("unseen", selected.dpu !== undefined);
  arrange(byId("cards"), names.map((name) => cards.get(name)));
  byId("none").hidden = cards.size > 0 || !isComplete;
}

// ---- The picture of one DPU ----

let selected = { dpu: undefined, key: undefined };
const rows = new Map(); // by the key of a device or of an undeclared function: its list item
const groups = new Map(); // by the name of a bridge: its element

const NO_BRIDGE = "";
const undeclaredKey = (vuid) => `~${vuid}`;

function box(className, state, head, ...children) {
  const node = element("div", `node ${className}`, head, ...children);
  if (state) node.dataset.state = state;
  return node;
}

function head(state, name, why) {
  const node = element("div", "", text("span", "name", name), " ");
  if (state) node.append(stateLabel(state, why));
  return node;
}

function driverWords({ driver, seen, bdf, socket }) {
  if (driver) return `driver ${driver}`;
  if (seen) return "no driver";
  return bdf || socket ? "" : "not on the host's bus";
}

function drawDevice(key, device) {
  const { state, reason, message, pending, deleting, function: own, representor, port } = device;
  const row = element("li", "row");
  row.dataset.key = key;
  row.dataset.state = state;
  const first = box(
    "function",
    own.state,
    head(own.state, key, own.why),
    facts(
      [own.kind, "", "plain"],
      [own.bdf, "BDF: its PCI address on the host"],
      [own.socket, "the socket of a function in software"],
      [own.mac, "MAC"],
      [own.vuid, "VUID: the controller's name of it"],
      [driverWords(own), "", "plain"],
    ),
  );
  const second = representor
    ? box("representor", representor.state, head(representor.state, representor.name, representor.why),
      facts([representor.sf !== undefined ? `SF ${representor.sf}` : "", "", "plain"]))
    : box("representor absent", "", "no representor");
  const third = port
    ? box("port", port.state, head(port.state, "port", port.why), facts([vlanWords(port), "", "plain"]))
    : box("port absent", "", "no port wanted");
  if (representor) join(first, representor.state);
  if (representor && port) {
    join(second, port.state);
    join(third, port.state);
  }
  row.append(first, second, third);
  if (state !== "ready" || pending || deleting) {
    const why = element("div", "why", stateLabel(state, reason && reason !== WORDS[state] ? `${WORDS[state]}: ${reason}` : undefined));
    if (message) why.append(" – ", text("span", "message", message));
    if (pending && pending !== message) why.append(" – ", text("span", "pending", pending));
    if (deleting) why.append(" – it is being deleted");
    row.append(why);
  }
  return row;
}

function join(node, state) {
  node.classList.add("joined");
  node.dataset.join = state;
}

function vlanWords({ tag, trunks }) {
  if (tag !== undefined) return `VLAN ${tag}`;
  if (trunks) return `trunk of VLANs ${trunks.length > 8 ? `${trunks.slice(0, 8).join(", ")}, …` : trunks.join(", ")}`;
  return "untagged";
}

function drawUndeclared({ vuid, kind, bdf, mac, representor }) {
  const row = element("li", "row");
  row.dataset.key = undeclaredKey(vuid);
  row.append(
    box("function absent", "", element("div", "", text("span", "name", vuid), " declared by no object"),
      facts([kind, "", "plain"], [bdf, "BDF"], [mac, "MAC"])),
    box("representor absent", "", representor ?? "no representor known"),
  );
  return row;
}

function drawGroup(bridge) {
  const title = element("h3", "bridge");
  const words = text("span", "", bridge === NO_BRIDGE ? "no bridge" : bridge);
  words.append(element("small"));
  title.append(words);
  const node = element("section", "group", element("ol", "rows"), title);
  node.dataset.bridge = bridge;
  return node;
}

/// All rows of the picture, with what they are sorted by.
function pictured(name) {
  const all = [];
  for (const key of devicesOf.get(name) ?? []) {
    const device = devices.get(key);
    all.push({ key, order: device.function.order, bridge: device.port?.bridge ?? NO_BRIDGE, draw: () => drawDevice(key, device) });
  }
  for (const one of dpus.get(name)?.undeclared ?? []) {
    all.push({ key: undeclaredKey(one.vuid), order: one.order, bridge: NO_BRIDGE, draw: () => drawUndeclared(one) });
  }
  return all.sort((a, b) => a.order[0] - b.order[0] || a.order[1] - b.order[1] || natural(a.key, b.key));
}

function whyEmpty(name, count) {
  if (!isComplete) return "The objects are being listed.";
  if (!isShown(name)) return name === UNBOUND ? "Every device is bound to a DPU." : "There is no such DPU.";
  return count === 0 ? "There are none yet." : "";
}

/// `changed` says of which keys there is news; without it all are drawn.
function showPicture(changed) {
  const name = selected.dpu;
  const section = byId("picture");
  section.hidden = name === undefined || query() !== "";
  if (section.hidden) return;
  const all = pictured(name);
  byId("picture-title").textContent = name === UNBOUND ? "Functions without a DPU" : `Functions of ${name}`;
  byId("picture-why").textContent = whyEmpty(name, all.length);
  byId("heads").hidden = all.length === 0;
  const lists = new Map();
  const kept = new Set();
  for (const { key, bridge, draw } of all) {
    kept.add(key);
    if (!rows.has(key) || !changed || changed.has(key)) {
      const drawn = draw();
      const before = rows.get(key);
      if (!before || !before.isEqualNode(drawn)) rows.set(key, drawn);
    }
    if (!lists.has(bridge)) lists.set(bridge, []);
    lists.get(bridge).push(rows.get(key));
  }
  for (const key of rows.keys()) if (!kept.has(key)) rows.delete(key);
  for (const bridge of groups.keys()) if (!lists.has(bridge)) groups.delete(bridge);
  for (const [bridge, items] of lists) {
    if (!groups.has(bridge)) groups.set(bridge, drawGroup(bridge));
    const group = groups.get(bridge);
    arrange(group.firstChild, items);
    const ports = bridge === NO_BRIDGE ? "" : `${items.length} ${items.length === 1 ? "port" : "ports"}`;
    group.querySelector("small").textContent = ports;
  }
  // What is on no bridge comes last.
  const order = [...lists.keys()].sort((a, b) => (a === NO_BRIDGE) - (b === NO_BRIDGE) || natural(a, b));
  arrange(byId("groups"), order.map((bridge) => groups.get(bridge)));
  aim();
}

/// Marks the row that the address names, and brings it into view the first time that it is there.
function aim() {
  const row = rows.get(selected.key);
  if (!row || row.classList.contains("aim")) return;
  for (const other of rows.values()) other.classList.remove("aim");
  row.classList.add("aim");
  if (!selected.isAimed) row.scrollIntoView({ block: "center" });
  selected.isAimed = true;
}

function select() {
  let parts;
  try {
    parts = location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    parts = [""]; // no address of ours
  }
  const [name, ...key] = parts;
  const before = selected.dpu;
  selected = { dpu: name || undefined, key: key.length > 0 ? key.join("/") : undefined, isAimed: false };
  rows.clear();
  groups.clear();
  byId("groups").replaceChildren();
  showCards([before, selected.dpu].filter((name) => name !== undefined));
  showPicture();
  if (selected.dpu === undefined || selected.key) return;
  // From wherever in the fleet it was chosen, to its top; for the keyboard and for who hears the page, to its picture.
  scrollTo(0, 0);
  if (before !== selected.dpu) byId("picture-title").focus({ preventScroll: true });
}

// ---- Search ----

function query() {
  return byId("query").value.trim().toLowerCase();
}

/// A MAC may be written with dashes, a BDF with its domain.
function spellings(words) {
  return [words, words.replaceAll("-", ":"), words.replace(/^0000:/, "")];
}

function find(words) {
  const wanted = spellings(words);
  const matches = (found) => wanted.some((spelling) => found.includes(spelling));
  const hits = [];
  for (const [key, found] of texts) {
    if (matches(found)) hits.push({ name: dpuOf(devices.get(key)), key });
  }
  for (const [name, { undeclared }] of dpus) {
    if (matches(name.toLowerCase())) hits.push({ name });
    for (const one of undeclared ?? []) {
      if (matches(searchText([one.vuid, one.bdf, one.mac, one.representor]))) {
        hits.push({ name, key: undeclaredKey(one.vuid), undeclared: one });
      }
    }
  }
  return hits.sort((a, b) => natural(a.name, b.name) || natural(a.key ?? "", b.key ?? ""));
}

function drawHit({ name, key, undeclared }) {
  const link = element("a", "hit");
  link.href = hashOf(name, key);
  const device = devices.get(key);
  const { state, reason } = device ?? (undeclared ? { state: "unknown", reason: "Undeclared" } : standingOf(name));
  link.dataset.state = state;
  const title = undeclared ? undeclared.vuid : key ?? name;
  link.append(text("span", "name", title), " ", stateLabel(state, reason || undefined));
  const { bdf, mac, vuid } = device?.function ?? undeclared ?? {};
  link.append(facts(
    [key && (name === UNBOUND ? "bound to no DPU" : `on ${name}`), "", "plain"],
    [bdf, "BDF"],
    [mac, "MAC"],
    [device && vuid, "VUID"],
    [device ? device.representor?.name : undeclared?.representor, "representor"],
  ));
  return element("li", "", link);
}

function showFound() {
  const words = query();
  byId("found").hidden = words === "";
  byId("fleet").hidden = words !== "";
  if (words === "") return;
  const hits = find(words);
  const count = hits.length === 1 ? "1 match" : `${hits.length} matches`;
  const more = hits.length > HITS_AT_MOST ? `, of which these are the first ${HITS_AT_MOST}` : "";
  byId("found-count").textContent = count + more;
  const list = byId("found-list");
  const drawn = hits.slice(0, HITS_AT_MOST).map(drawHit);
  // Those that are as they were stay, and with them the keyboard's focus.
  arrange(list, drawn.map((item, index) => (list.children[index]?.isEqualNode(item) ? list.children[index] : item)));
}

function showQuery() {
  showFound();
  showPicture();
}

// ---- The stream ----

let isComplete = false; // the server has listed all objects
let heard; // what a beginning stream has told of; what it has not is gone at its end
let source;
let silence;

function tell(link, words) {
  const node = byId("link");
  if (node.dataset.link === link && node.textContent === words) return;
  node.dataset.link = link;
  node.textContent = words;
}

function take({ reset, more, complete, dpus: newDpus, devices: newDevices }) {
  const touched = new Set();
  const changed = new Set();
  if (reset) heard = { dpus: new Set(), devices: new Set() };
  const put = (name, dpu) => {
    for (const one of dpus.get(name)?.undeclared ?? []) changed.add(undeclaredKey(one.vuid));
    for (const one of dpu?.undeclared ?? []) changed.add(undeclaredKey(one.vuid));
    if (dpu === null) dpus.delete(name);
    else dpus.set(name, dpu);
    touched.add(name);
  };
  const putEach = (key, device) => {
    for (const name of putDevice(key, device)) touched.add(name);
    changed.add(key);
  };
  for (const [name, dpu] of Object.entries(newDpus)) {
    heard?.dpus.add(name);
    put(name, dpu);
  }
  for (const [key, device] of Object.entries(newDevices)) {
    heard?.devices.add(key);
    putEach(key, device);
  }
  // What a server has not heard of itself yet is not gone.
  if (heard && !more && complete) {
    for (const name of [...dpus.keys()]) if (!heard.dpus.has(name)) put(name, null);
    for (const key of [...devices.keys()]) if (!heard.devices.has(key)) putEach(key, null);
    heard = undefined;
  }
  const isNews = isComplete !== complete;
  isComplete = complete;
  showCards(touched);
  if (touched.size > 0) showFound();
  if (isNews || touched.has(selected.dpu) || (selected.dpu !== undefined && !isShown(selected.dpu))) showPicture(changed);
  tell("live", complete ? "● Live" : "◌ Listing…");
}

function lost() {
  clearTimeout(silence);
  source?.close();
  tell("lost", "✕ Connection lost: this may be out of date. Trying again…");
  setTimeout(connect, RETRY_MS);
}

function attend() {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE_MS);
}

function connect() {
  source = new EventSource("events");
  source.addEventListener("change", (event) => {
    attend();
    take(JSON.parse(event.data));
  });
  source.addEventListener("beat", attend);
  source.addEventListener("error", lost);
  attend();
}

byId("search").addEventListener("submit", (event) => event.preventDefault());
byId("query").addEventListener("input", showQuery);
byId("only").addEventListener("change", (event) => byId("groups").classList.toggle("only", event.target.checked));
/// Who follows a link from what was found wants to see where it leads.
function follow() {
  byId("query").value = "";
  showFound();
  select();
}

addEventListener("hashchange", follow);
byId("found-list").addEventListener("click", (event) => {
  // One that leads to where the page is already changes no address.
  if (event.target.closest("a")?.hash === location.hash) follow();
});
select();
connect();
