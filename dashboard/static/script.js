"use strict";
// The page: it requests the state at each interval while it is visible, and updates the document to
// what it should show. All texts become text nodes, never markup.
(() => {
	const page = document.body.dataset;
	const main = document.getElementById("main");

	let state = null; // the latest
	let pipelines = new Map(), policies = new Map(); // of the state, by ID
	let history = { id: "", data: null, requested: 0 };
	let route = readRoute();
	let outcome = null; // of the latest action: {policy, text, failed}

	// ---- The document ----

	// h describes an element. Children are strings, elements, or lists of them; empty ones are left out.
	function h(tag, props, ...children) {
		return { tag, props: props || {}, children: children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false && c !== "") };
	}

	// patch makes the children of parent what is wanted. It keeps elements with the same key or, without
	// keys, with the same tag, and does not move the one that has the focus, so that focus, input, and
	// selections survive.
	function patch(parent, wanted) {
		const keyed = new Map(), others = [];
		for (const node of parent.childNodes) {
			if (node.shownKey !== undefined && !keyed.has(node.shownKey)) keyed.set(node.shownKey, node);
			else others.push(node);
		}
		const nodes = wanted.map((w) => {
			if (typeof w !== "object") {
				const text = String(w);
				const i = others.findIndex((node) => node.nodeType === Node.TEXT_NODE);
				if (i < 0) return document.createTextNode(text);
				const [node] = others.splice(i, 1);
				if (node.data !== text) node.data = text;
				return node;
			}
			let node;
			if (w.props.key !== undefined) {
				node = keyed.get(w.props.key);
				if (node && node.shownTag === w.tag) keyed.delete(w.props.key);
				else node = undefined;
			} else {
				const i = others.findIndex((other) => other.shownTag === w.tag);
				if (i >= 0) [node] = others.splice(i, 1);
			}
			node = node || create(w, parent);
			update(node, w);
			return node;
		});
		const active = document.activeElement;
		let lost = false;
		for (const node of [...keyed.values(), ...others]) {
			lost = lost || node.contains(active);
			node.remove();
		}
		if (lost) main.focus({ preventScroll: true });
		if (!nodes.length) return;
		const fixed = Math.max(0, nodes.findIndex((node) => node.contains(active)));
		if (nodes[fixed].parentNode !== parent) parent.insertBefore(nodes[fixed], parent.firstChild);
		for (let i = fixed - 1; i >= 0; i--) {
			if (nodes[i].parentNode !== parent || nodes[i].nextSibling !== nodes[i + 1]) parent.insertBefore(nodes[i], nodes[i + 1]);
		}
		for (let i = fixed + 1; i < nodes.length; i++) {
			if (nodes[i - 1].nextSibling !== nodes[i]) parent.insertBefore(nodes[i], nodes[i - 1].nextSibling);
		}
	}

	function create(w, parent) {
		const svg = w.tag === "svg" || parent.namespaceURI === "http://www.w3.org/2000/svg";
		const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", w.tag) : document.createElement(w.tag);
		node.shownTag = w.tag;
		node.shown = {};
		return node;
	}

	function update(node, w) {
		const before = node.shown;
		for (const name of new Set([...Object.keys(before), ...Object.keys(w.props)])) {
			const value = w.props[name];
			if (name === "key" || before[name] === value) continue;
			if (name.startsWith("on")) node[name] = value || null;
			else if (name === "initial") { // of an input, which belongs to the user afterwards
				if (before[name] === undefined) node[typeof value === "boolean" ? "checked" : "value"] = value;
			} else if (name === "band") node.style.setProperty("--width", value);
			else if (value === undefined || value === null || value === false) node.removeAttribute(name);
			else node.setAttribute(name, value === true ? "" : value);
		}
		node.shown = w.props;
		node.shownKey = w.props.key;
		patch(node, w.children);
	}

	// ---- Formats, the same as those of the server ----

	const clockFormat = new Intl.DateTimeFormat("en-US", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
	const dayFormat = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric", year: "numeric" });
	const fullFormat = new Intl.DateTimeFormat("en-US", { dateStyle: "full", timeStyle: "long" });

	function clock(date) {
		if (Number.isNaN(date.getTime())) return "–";
		const today = state ? new Date(state.at) : new Date();
		const text = clockFormat.format(date);
		return dayFormat.format(date) === dayFormat.format(today) ? text : dayFormat.format(date) + ", " + text;
	}

	function time(text) {
		const date = new Date(text);
		const valid = !Number.isNaN(date.getTime());
		return h("time", { datetime: text, title: valid ? fullFormat.format(date) : undefined }, clock(date));
	}

	// ageOf is by the server's clock.
	function ageOf(text) {
		return age((new Date(state.at) - new Date(text)) / 1000);
	}

	function age(seconds) {
		const s = Math.max(0, Math.round(seconds)) || 0;
		const part = (n) => Math.floor(n);
		if (s < 60) return `${s} s`;
		if (s < 3600) return `${part(s / 60)} min ${s % 60} s`;
		if (s < 86400) return `${part(s / 3600)} h ${part(s / 60) % 60} min`;
		return `${part(s / 86400)} d ${part(s / 3600) % 24} h`;
	}

	function short(s) {
		const two = (v, unit) => (v < 9.95 ? v.toFixed(1).replace(/\.0$/, "") : v.toFixed(0)) + " " + unit;
		if (s === 0) return "0 s";
		if (s < 0.0009995) return two(s * 1e6, "µs");
		if (s < 0.9995) return two(s * 1e3, "ms");
		if (s < 120) return two(s, "s");
		return age(s);
	}

	function latency(s) {
		if (s === null) return "–";
		const bounds = state.bounds;
		if (bounds.length && s >= bounds[bounds.length - 1]) return ">" + short(bounds[bounds.length - 1]);
		if (bounds.length && s <= bounds[0]) return "<" + short(bounds[0]);
		return short(s);
	}

	function rate(r) {
		if (!r) return "0";
		if (r < 0.05) return "<0.1";
		if (r < 9.95) return r.toFixed(1).replace(/\.0$/, "");
		return Math.round(r).toLocaleString("en-US");
	}

	// percent never rounds up to 100%, nor down to 0%.
	function percent(share) {
		if (share === null) return "–";
		if (share >= 1) return "100%";
		if (share >= 0.99) return (Math.floor(share * 1000 + 1e-9) / 10).toFixed(1) + "%";
		if (share > 0 && share < 0.01) return "<1%";
		return Math.round(share * 100) + "%";
	}

	function value(v, unit) {
		if (v === null) return "–";
		if (unit === "s") return short(v);
		return Number(v.toFixed(2)).toString() + (unit.endsWith("/s") ? "/s" : "");
	}

	const words = (name) => name.replaceAll("_", " ");
	const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
	const signs = { down: "✕", degraded: "!", ok: "✓", idle: "–" };
	const classOf = (name) => name.replace(/[^a-z_]/g, "-");

	const level = (name) => h("span", { class: "badge " + name }, `${signs[name]} ${name}`);
	const stateBadge = (name, n) => h("span", { class: "badge " + classOf(name) }, n > 1 ? `${n} ${name}` : name);

	// stateOrder puts what needs attention first.
	const stateOrder = ["open", "forced open", "half-open", "disabled", "closed"];
	function stateBadges(counts) {
		const rank = (s) => (stateOrder.indexOf(s) + stateOrder.length + 1) % (stateOrder.length + 1);
		return Object.keys(counts).sort((a, b) => rank(a) - rank(b)).map((s) => stateBadge(s, counts[s]));
	}

	// ---- Parts that several views show ----

	const pipelineHref = (id) => "?pipeline=" + encodeURIComponent(id);
	const policyHref = (id) => "?policy=" + encodeURIComponent(id);
	const name = (text) => h("bdi", null, text);

	function pipelineLinks(ids, most = 6) {
		const links = ids.slice(0, most).map((id, i) => {
			const p = pipelines.get(id);
			return [i > 0 && ", ", h("a", { href: pipelineHref(id), key: id }, name(p ? p.name : "a pipeline"))];
		});
		return ids.length > most ? [links, ` and ${ids.length - most} more`] : links;
	}

	function errorBox(error) {
		return error && h("code", { class: "error" }, error.text, error.text && " ", h("span", null, error.type));
	}

	function troubleCards(troubles) {
		if (!troubles.length) return null;
		return h("section", { class: "cards", key: "troubles", "aria-label": "Troubles" }, troubles.map((t) => h("article",
			{ class: "card trouble " + t.level, key: (t.policy || t.pipelines.join()) + t.since },
			h("h2", null, level(t.level), h("bdi", null, t.what)),
			h("p", { class: "since" }, "Since ", time(t.since), `, ${ageOf(t.since)}.`),
			t.why && h("p", { class: "cause" }, `Cause: ${t.why}${/[.!?…]$/.test(t.why) ? "" : "."}`),
			errorBox(t.error),
			t.advice && h("p", { class: "advice" }, t.advice),
			h("p", { class: "links" },
				t.policy && h("a", { href: policyHref(t.policy) }, "Open the policy"),
				t.policy && t.pipelines.length > 0 && " · affects ",
				pipelineLinks(t.pipelines)),
		)));
	}

	function changeText(c) {
		return [c.from, " → ", stateBadge(c.to, 1)];
	}

	function crumbs(...links) {
		return h("nav", { class: "crumbs", key: "crumbs", "aria-label": "Breadcrumb" }, h("a", { href: "./" }, "All pipelines"), links);
	}

	// ---- The overview ----

	function overview() {
		const troubles = state.troubles, n = troubles.length;
		const worst = n ? troubles[0].level : "ok";
		const busy = state.pipelines.filter((p) => p.rate > 0 || p.running > 0).length;
		const shown = state.pipelines.filter((p) => matches(p));
		return [
			h("div", { class: "headline", key: "headline" },
				h("span", { class: "mark " + worst, "aria-hidden": "true" }, signs[worst]),
				h("div", null,
					h("h1", { tabindex: "-1" }, n ? plural(n, "thing is in trouble", "things are in trouble") : "No trouble"),
					h("p", null, `${plural(state.pipelines.length, "pipeline", "pipelines")}, ${busy} busy · ${state.window > 0 ? "rates and quantiles of the last " + short(state.window) : "no rates yet"}`))),
			troubleCards(troubles),
			h("div", { class: "columns", key: "columns" },
				h("section", { class: "panel", key: "pipelines", "aria-labelledby": "pipelines" },
					h("div", { class: "tools", role: "search" },
						h("label", { key: "search" }, "Search ", h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", initial: route.q, oninput: filter })),
						h("label", { key: "only" }, h("input", { type: "checkbox", id: "only", initial: route.trouble, onchange: filter }), "Only trouble"),
						h("span", { class: "faint", key: "count" }, `${shown.length} of ${state.pipelines.length}`)),
					h("h2", { id: "pipelines" }, "Pipelines"),
					shown.length ? pipelineTable(shown) : h("p", { class: "faint", key: "none" },
						state.pipelines.length ? "No pipeline matches." : "No pipelines yet: create them with the Observer's method Pipeline.")),
				h("section", { class: "panel", key: "changes", "aria-labelledby": "changes" },
					h("h2", { id: "changes" }, "Latest changes"),
					state.changes.length ? h("ol", { class: "changes" }, state.changes.map((c) => h("li", { key: c.policy + c.at + c.from + c.to },
						time(c.at), " ", h("a", { href: policyHref(c.policy) }, c.kind, " ", name(c.name)),
						h("div", null, changeText(c), " ", h("span", { class: "faint" }, c.cause)),
						errorBox(c.error)))) : h("p", { class: "faint" }, "No policy has changed its state."))),
		];
	}

	function matches(p) {
		return (!route.trouble || p.level === "down" || p.level === "degraded") && p.name.toLowerCase().includes(route.q.toLowerCase());
	}

	function filter() {
		route.q = document.getElementById("search").value;
		route.trouble = document.getElementById("only").checked;
		const query = new URLSearchParams();
		if (route.q) query.set("q", route.q);
		if (route.trouble) query.set("trouble", "1");
		const text = query.toString();
		window.history.replaceState(null, "", text ? "?" + text : "./");
		render();
	}

	const goodClass = (good) => (good === null || good >= 0.95 ? "" : good < 0.5 ? " red" : " amber");

	function pipelineTable(list) {
		const head = (text, cls) => h("th", { scope: "col", class: cls, role: "columnheader" }, text);
		const cell = (label, text, cls = "") => h("td", { class: "n" + cls, "data-label": label, role: "cell" }, h("span", null, text));
		return h("table", { class: "rows", key: "table", role: "table", "aria-labelledby": "pipelines" },
			h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head("Pipeline"), head(h("span", { class: "unseen" }, "Trend"), "spark"), head("Calls/s", "n"), head("Good", "n"), head("p50", "n"), head("p99", "n"), head("Running", "n"), head("Breakers", "states"))),
			h("tbody", { role: "rowgroup" }, list.map((p) => h("tr", { key: p.id, class: p.level, role: "row" },
				h("th", { scope: "row", class: "name", role: "rowheader" }, level(p.level), " ", h("a", { href: pipelineHref(p.id) }, name(p.name)), p.why && h("span", { class: "why", title: p.why }, p.why)),
				h("td", { class: "spark", role: "cell" }, sparkline(p)),
				cell("Calls/s", rate(p.rate)),
				cell("Good", percent(p.good), goodClass(p.good)),
				cell("p50", latency(p.p50)),
				cell("p99", latency(p.p99)),
				cell("Running", String(p.running)),
				h("td", { class: "states", role: "cell" }, p.layers.some((l) => Object.keys(l.states).length) ? p.layers.map((l) => stateBadges(l.states)) : h("span", { class: "faint" }, "–"))))));
	}

	function sparkline(p) {
		const width = 96, height = 26, all = p.spark.rate, slots = 60;
		const max = Math.max(1e-9, ...all);
		const x = (i) => width - (all.length - 1 - i) * (width / (slots - 1));
		const y = (v) => height - 1 - (v / max) * (height - 3);
		const line = all.map((v, i) => `${i ? "L" : "M"}${fixed(x(i))} ${fixed(y(v))}`).join("");
		const area = (values) => values.length > 1 ? `M${fixed(x(0))} ${height - 1}` + values.map((v, i) => `L${fixed(x(i))} ${fixed(y(v))}`).join("") + `L${width} ${height - 1}Z` : "";
		const bad = p.spark.bad.some((v) => v > 0);
		return h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": bad ? "Calls per second, some bad" : "Calls per second" },
			all.length > 1 && h("path", { key: "area", class: "area", d: area(all) }),
			all.length > 1 && h("path", { key: "line", class: "line", d: line }),
			bad && all.length > 1 && h("path", { key: "bad", class: "bad", d: area(p.spark.bad) }));
	}

	const fixed = (v) => Number(v.toFixed(1));

	// ---- A pipeline ----

	function pipelineView(p) {
		const figure = (label, text, cls = "") => h("div", { key: label }, h("dt", null, label), h("dd", { class: cls }, text));
		return [
			crumbs(),
			h("div", { class: "title", key: "title" }, h("h1", { tabindex: "-1" }, name(p.name), " ", level(p.level)), p.why && h("p", null, p.why)),
			troubleCards(state.troubles.filter((t) => t.pipelines.includes(p.id))),
			h("dl", { class: "figures", key: "figures" },
				figure("calls a second", rate(p.rate)), figure("good", percent(p.good), goodClass(p.good).trim()), figure("p50", latency(p.p50)),
				figure("p99", latency(p.p99)), figure("running", String(p.running)), figure("attempts a call", p.rate > 0 ? (p.attempts / p.rate).toFixed(2) : "–")),
			h("section", { class: "panel", key: "flow", "aria-labelledby": "flow" }, h("h2", { id: "flow" }, "Flow"), flow(p)),
			h("div", { class: "charts", key: "charts" }, charts(p)),
			h("section", { class: "panel", key: "errors", "aria-labelledby": "errors" }, h("h2", { id: "errors" }, "Latest error of each result"),
				Object.keys(p.errors).length ? h("ul", { class: "errors" }, resultNames.filter((r) => p.errors[r]).map((r) => h("li", { key: r },
					h("strong", null, words(r)), ` ${p.total[r].toLocaleString("en-US")} in all, the latest `, time(p.errors[r].at), `, ${ageOf(p.errors[r].at)} ago`, errorBox(p.errors[r])))) :
					h("p", { class: "faint" }, "None yet.")),
		];
	}

	const eventTexts = { refusal: "↩ refuses", retry: "↻ retries", hedge: "⑂ hedges", timeout: "⏱ times out", give_up: "✕ gives up" };

	function flow(p) {
		// Pipelines of one name can have different policies at one position.
		const positions = [];
		for (const l of p.layers) {
			const last = positions[positions.length - 1];
			if (last && last[0].position === l.position) last.push(l);
			else positions.push([l]);
		}
		const total = (list, field) => list.reduce((n, l) => n + l[field], 0);
		const flows = [positions.length ? total(positions[0], "entered") : p.attempts, ...positions.map((list) => total(list, "passed"))];
		const most = Math.max(1e-9, ...flows);
		const band = (i) => h("div", { key: "band", class: flows[i] > 0 ? "band" : "band none", band: `${fixed(2 + 34 * flows[i] / most)}px` }, h("span", null, `${rate(flows[i])}/s`));
		return h("ol", { class: "flow", tabindex: "0", "aria-label": "From the caller to the effector" },
			h("li", { key: "caller" },
				h("div", { class: "node end" }, h("p", { class: "kind" }, "caller"), h("p", { class: "big" }, `${rate(p.rate)} calls/s`), h("p", null, `${percent(p.good)} good`), h("p", null, `${p.running} running`)),
				band(0)),
			positions.map((list, i) => h("li", { key: "position" + list[0].position }, list.map((l) => node(l)), band(i + 1))),
			h("li", { key: "effector" }, h("div", { class: "node end" }, h("p", { class: "kind" }, "effector"), h("p", { class: "big" }, `${rate(p.attempts)} attempts/s`))));
	}

	function node(l) {
		const has = (...names) => names.some((s) => l.states[s] > 0);
		const cls = has("open", "forced open") ? " open" : has("half-open", "disabled") ? " uncertain" : "";
		const policy = policies.get(l.policy);
		const href = l.kind === "pipeline" && pipelines.has(l.policy) ? pipelineHref(l.policy) : policy && policyHref(l.policy);
		const gauges = policy && policy.live ? policy.values.filter((v) => v.name !== "retry_after" || v.max > 0) : [];
		return h("div", { class: "node" + cls, key: l.kind },
			h("p", { class: "kind" }, `${l.position}. ${l.kind}`),
			h("p", { class: "big" }, href ? h("a", { href }, name(l.name)) : name(l.name)),
			Object.keys(l.states).length > 0 && h("p", null, stateBadges(l.states)),
			Object.keys(eventTexts).filter((e) => l.events[e] > 0).map((e) => h("p", { class: "event " + (e === "retry" || e === "hedge" ? "amber" : "red"), key: e }, `${eventTexts[e]} ${rate(l.events[e])}/s`)),
			gauges.map((v) => h("p", { class: "gauge", key: "gauge " + v.name }, `${words(v.name)} ${policyValue(v, policy.live)}`)));
	}

	// policyValue shows what adds up as a total, and otherwise the range over the live policies.
	function policyValue(v, live) {
		if (v.unit.startsWith("{") || live === 1) return value(v.total, v.unit);
		if (v.min === v.max) return value(v.max, v.unit);
		return `${value(v.min, v.unit)} to ${value(v.max, v.unit)}`;
	}

	// ---- Charts ----

	const resultNames = ["success", "failure", "refused", "timed_out", "canceled", "panicked"];
	const resultLabels = { success: "good", failure: "failed", refused: "refused", timed_out: "timed out", canceled: "canceled", panicked: "panicked" };
	const widths = new Map(); // of charts, by ID: they are drawn at the size in which they are shown

	function charts(p) {
		const data = history.id === p.id ? history.data : null;
		if (!data || !data.running.length) return [panel("results", "Calls by result, per second", null, h("p", { class: "faint" }, data ? "No sample yet." : "Loading…"))];
		const begin = new Date(data.start).getTime(), end = begin + data.step * 1000 * data.running.length;
		const calls = data.running.map((_, i) => resultNames.reduce((n, r) => n + data.results[r][i], 0));
		const results = resultNames.filter((r) => data.results[r].some((v) => v > 0));
		const axis = { begin, end };
		const last = (list) => list[list.length - 1];
		const latencies = Math.max(...data.p99) >= last(state.bounds) ? ` (${latency(last(state.bounds))} is drawn as ${short(last(state.bounds))})` : "";
		return [
			panel("results", "Calls by result, per second", results.map((r) => ["f-" + r, resultLabels[r]]),
				chart("results", axis, results.map((r) => ({ cls: "f-" + r, values: data.results[r] })), { stacked: true, format: rate, label: results.map((r) => `${resultLabels[r]} ${rate(last(data.results[r]))}`).join(", ") })),
			panel("load", "Load at the effector against calls, per second", [["s-first", "calls"], ["s-second", "attempts"]],
				chart("load", axis, [{ cls: "s-first", values: calls }, { cls: "s-second", values: data.attempts }], { format: rate, label: `calls ${rate(last(calls))}, attempts ${rate(last(data.attempts))}` })),
			panel("latency", "Latency of calls that were not refused" + latencies, [["s-first", "p50"], ["s-second", "p99"]],
				chart("latency", axis, [{ cls: "s-first", values: data.p50, gaps: true }, { cls: "s-second", values: data.p99, gaps: true }], { format: short, label: last(data.p99) ? `p50 ${short(last(data.p50))}, p99 ${short(last(data.p99))}` : "no calls" })),
			panel("running", "Calls running", [],
				chart("running", axis, [{ cls: "s-first", values: data.running }], { whole: true, format: rate, label: String(last(data.running)) })),
			p.layers.filter((l) => policies.has(l.policy) && l.kind === "breaker").map((l) => strip(policies.get(l.policy), axis)),
		];
	}

	function panel(id, title, legend, content) {
		return h("figure", { class: "panel", key: id }, h("figcaption", null, h("h2", null, title)),
			legend && h("ul", { class: "legend" }, legend.map(([cls, label]) => h("li", { key: label }, h("i", { class: cls }), label))), content);
	}

	// ceiling returns a round number that is at least v; an even one for what is counted in wholes.
	function ceiling(v, whole) {
		if (whole && v <= 20) return Math.max(2, 2 * Math.ceil(v / 2));
		if (!(v > 0)) return 1;
		const unit = 10 ** Math.floor(Math.log10(v));
		return unit * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((m) => m * unit >= v * 0.9999);
	}

	function chart(id, axis, series, { stacked, whole, format, label }) {
		const width = widths.get(id) || 440, height = 190, left = 52, right = 4, top = 8, bottom = 22;
		const n = series.length ? series[0].values.length : 0;
		const sums = Array.from({ length: n }, (_, i) => series.reduce((sum, s) => sum + s.values[i], 0));
		const max = ceiling(Math.max(0, ...(stacked ? sums : series.flatMap((s) => s.values))), whole);
		const x = (i) => left + (n > 1 ? i / (n - 1) : 1) * (width - left - right);
		const y = (v) => top + (1 - v / max) * (height - top - bottom);
		const at = (i, v) => `${fixed(x(i))} ${fixed(y(v))}`;
		const paths = [];
		if (stacked) {
			const base = new Array(n).fill(0);
			series.forEach((s, k) => {
				const lower = base.map((v, i) => `L${at(i, v)}`).reverse();
				s.values.forEach((v, i) => { base[i] += v; });
				const upper = base.map((v, i) => `${i ? "L" : "M"}${at(i, v)}`);
				// A single point is drawn as if it lasted.
				const single = n === 1 ? `M${left} ${fixed(y(base[0]))}H${width - right}V${fixed(y(base[0] - s.values[0]))}H${left}Z` : upper.join("") + lower.join("") + "Z";
				paths.push(h("path", { key: "s" + k, class: s.cls, d: single }));
			});
		} else {
			series.forEach((s, k) => {
				let d = "", drawing = false;
				s.values.forEach((v, i) => {
					if (s.gaps && !(v > 0)) {
						drawing = false;
						return;
					}
					d += drawing ? `L${at(i, v)}` : `M${at(i, v)}h0.1`;
					drawing = true;
				});
				if (d) paths.push(h("path", { key: "s" + k, class: "line " + s.cls, "stroke-linecap": "round", d }));
			});
		}
		return h("div", { class: "chart", "data-chart": id }, h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Latest: " + label },
			[0, max / 2, max].map((v, i) => [
				h("line", { key: "grid" + i, class: "grid", x1: left, x2: width - right, y1: fixed(y(v)), y2: fixed(y(v)) }),
				h("text", { key: "label" + i, x: left - 8, y: fixed(y(v)) + 4, "text-anchor": "end" }, format(v))]),
			paths, timeLabels(axis, left, width - right, height - 5)));
	}

	function timeLabels(axis, left, right, y) {
		const parts = Math.max(1, Math.min(4, Math.floor((right - left) / 100)));
		const day = axis.end - axis.begin > 2 * 86400e3 / 3;
		return Array.from({ length: parts + 1 }, (_, i) => h("text", { key: "time" + i, x: fixed(left + (right - left) * i / parts), y, "text-anchor": i === 0 ? "start" : i === parts ? "end" : "middle" },
			(day ? clock : (d) => clockFormat.format(d))(new Date(axis.begin + (axis.end - axis.begin) * i / parts))));
	}

	// strip shows the states of a breaker name over the time of the charts.
	function strip(policy, axis) {
		const id = "strip " + policy.id, width = widths.get(id) || 440, height = 62, left = 52, right = 4;
		const x = (t) => left + Math.min(1, Math.max(0, (t - axis.begin) / (axis.end - axis.begin))) * (width - left - right);
		const changes = policy.changes.slice().reverse();
		const parts = [];
		// Before the first of the changes that are kept, the state is unknown if there were more.
		let from = changes.length < 50 ? axis.begin : new Date(changes[0].at).getTime();
		let current = changes.length ? changes[0].from : Object.keys(policy.states)[0] || "";
		const add = (to) => {
			if (to > axis.begin && to > from && current) parts.push({ from, to, state: current });
		};
		for (const c of changes) {
			const t = new Date(c.at).getTime();
			add(t);
			if (t > from) from = t;
			current = c.to;
		}
		add(axis.end);
		const seen = stateOrder.filter((s) => parts.some((part) => part.state === s));
		return panel(id, h("span", null, "States of breaker ", name(policy.name)), seen.map((s) => ["f-" + classOf(s), s]),
			h("div", { class: "chart strip", "data-chart": id }, h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Now: " + (Object.keys(policy.states).join(", ") || "none") },
				parts.map((part, i) => h("rect", { key: "part" + i, class: "f-" + classOf(part.state), x: fixed(x(part.from)), y: 4, width: Math.max(1, fixed(x(part.to) - x(part.from))), height: 30 })),
				timeLabels(axis, left, width - right, height - 5))));
	}

	// ---- A policy ----

	function policyView(p) {
		const inUse = p.live === 0 ? "None in use" : p.live === 1 ? "One in use" : `${p.live} in use`;
		return [
			crumbs(p.pipelines.slice(0, 3).map((id) => [" / ", pipelineLinks([id])])),
			h("div", { class: "title", key: "title" },
				h("h1", { tabindex: "-1" }, p.kind, " ", name(p.name), " ", stateBadges(p.states)),
				h("p", null, `${inUse}, ${p.changes.length ? "latest change" : "first seen"} `, time(p.since), `, ${ageOf(p.since)} ago.`, p.pipelines.length > 0 && [" In ", pipelineLinks(p.pipelines), "."]),
				p.manual && h("p", { class: "red" }, "Under manual control since ", time(p.manual), `, ${ageOf(p.manual)}.`)),
			troubleCards(state.troubles.filter((t) => t.policy === p.id)),
			page.token && controls(p),
			h("div", { class: "halves", key: "halves" },
				h("section", { class: "panel", key: "values" }, h("h2", null, "Values"), p.values.length ? h("dl", { class: "pairs" },
					p.values.map((v) => [h("dt", { key: "t" + v.name }, words(v.name)), h("dd", { key: "d" + v.name }, policyValue(v, p.live))])) : h("p", { class: "faint" }, "None.")),
				h("section", { class: "panel", key: "config" }, h("h2", null, "Configuration"), configuration(p))),
			h("section", { class: "panel", key: "changes" }, h("h2", { id: "changes" }, "Changes"), p.changes.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "changes" }, h("table", null,
				h("thead", null, h("tr", null, ["Time", "Change", "Cause", "Error"].map((text) => h("th", { scope: "col", key: text }, text)))),
				h("tbody", null, p.changes.map((c) => h("tr", { key: c.at + c.from + c.to }, h("td", null, time(c.at)), h("td", null, changeText(c)), h("td", null, c.cause), h("td", null, errorBox(c.error))))))) :
				h("p", { class: "faint" }, "None yet.")),
		];
	}

	function configuration(p) {
		if (!p.config) return h("p", { class: "faint" }, p.live ? "It differs among those in use." : "None in use.");
		const fields = Object.keys(p.config).sort();
		if (!fields.length) return h("p", { class: "faint" }, "None.");
		return h("dl", { class: "pairs" }, fields.map((f) => [h("dt", { key: "t" + f }, f), h("dd", { key: "d" + f }, p.config[f])]));
	}

	const actions = {
		open: { label: "Force open", text: "It will refuse all calls until it is reset." },
		"half-open": { label: "Half-open", text: "It will admit a few probes, which decide whether it closes or opens again, and refuse other calls." },
		disable: { label: "Disable", text: "It will admit all calls and count none, even if all fail, until it is reset." },
		reset: { label: "Reset", text: "It will close, admit all calls, and forget what it has counted." },
	};

	function uncontrolled(p) {
		if (p.controls) return "";
		if (p.kind !== "breaker") return "Only breakers can be controlled.";
		if (!p.live) return "No breaker of this name is in use.";
		return "The breaker has no name, so it can't be told from others. Set Config.Name.";
	}

	function controls(p) {
		const reason = uncontrolled(p);
		const mine = outcome && outcome.policy === p.id ? outcome : null;
		return h("section", { class: "panel", key: "controls", "aria-labelledby": "controls" }, h("h2", { id: "controls" }, "Controls"),
			h("div", { class: "buttons" }, Object.keys(actions).map((action) => h("button",
				{ type: "button", key: action, disabled: reason !== "", "aria-describedby": reason ? "reason" : undefined, onclick: () => confirm(p.id, action) }, actions[action].label))),
			reason && h("p", { class: "reason faint", id: "reason", key: "reason" }, reason),
			mine && h("p", { class: "outcome" + (mine.failed ? " red" : ""), key: "outcome" }, mine.text));
	}

	const dialog = document.getElementById("confirm");

	function confirm(id, action) {
		const p = policies.get(id);
		if (!p) return;
		const a = actions[action];
		const names = p.pipelines.map((one) => (pipelines.get(one) || { name: "a pipeline" }).name);
		const listed = names.slice(0, 8).join(", ") + (names.length > 8 ? `, and ${names.length - 8} more` : "");
		document.getElementById("confirm-title").textContent = `${a.label}: breaker ${p.name}?`;
		document.getElementById("confirm-text").textContent = [
			p.live === 1 ? a.text : `This concerns all ${p.live} breakers of this name. ${a.text.replace("It will", "Each will")}`,
			names.length ? `Affected ${names.length === 1 ? "pipeline" : "pipelines"}: ${listed}.` : "It is in no observed pipeline.",
			"It concerns this process only.",
		].join(" ");
		const act = document.getElementById("confirm-do");
		act.textContent = a.label;
		act.onclick = () => {
			dialog.close();
			control(p, action);
		};
		dialog.showModal();
		document.getElementById("confirm-cancel").focus();
	}
	document.getElementById("confirm-cancel").onclick = () => dialog.close();

	async function control(p, action) {
		outcome = { policy: p.id, text: "Sent.", failed: false };
		render();
		try {
			const response = await fetch(`policies/${encodeURIComponent(p.id)}/${action}`, { method: "POST", headers: { "X-Resilience-Token": page.token } });
			const text = response.ok ? "" : (await response.text()).trim().replace(/^dashboard: /, "");
			outcome = response.ok ? { policy: p.id, text: `${actions[action].label}: done.`, failed: false } :
				{ policy: p.id, text: `${actions[action].label} failed: ${text || "status " + response.status}.`, failed: true };
		} catch {
			outcome = { policy: p.id, text: `${actions[action].label}: no answer. It is unknown whether it was done.`, failed: true };
		}
		render();
		poll();
	}

	// ---- Rendering and navigation ----

	function readRoute() {
		const query = new URLSearchParams(location.search);
		return { pipeline: query.get("pipeline"), policy: query.get("policy"), q: query.get("q") || "", trouble: query.get("trouble") === "1" };
	}

	function unknown(what) {
		return [crumbs(), h("h1", { tabindex: "-1", key: "unknown" }, `Unknown ${what}`), h("p", { key: "why" }, `The process has no ${what} with this ID, or no longer.`)];
	}

	function render() {
		renderStatus();
		if (!state) {
			patch(main, [h("h1", { tabindex: "-1", key: "loading" }, disconnected ? "No answer yet" : "Loading…")]);
			return;
		}
		let view, title = state.title;
		if (route.pipeline !== null) {
			const p = pipelines.get(route.pipeline);
			view = p ? pipelineView(p) : unknown("pipeline");
			title = (p ? p.name : "Unknown pipeline") + " – " + title;
		} else if (route.policy !== null) {
			const p = policies.get(route.policy);
			view = p ? policyView(p) : unknown("policy");
			title = (p ? `${p.kind} ${p.name}` : "Unknown policy") + " – " + title;
		} else {
			view = overview();
		}
		const key = route.pipeline !== null ? "pipeline " + route.pipeline : route.policy !== null ? "policy " + route.policy : "overview";
		const wanted = [h("div", { class: "view", key }, view)];
		patch(main, wanted);
		if (measure()) render();
		const n = state.troubles.length;
		const tab = (disconnected ? "Disconnected – " : n ? `(${n}) ` : "") + title;
		if (document.title !== tab) document.title = tab;
		const icon = document.querySelector('link[rel="icon"]');
		const href = n ? page.iconTrouble : page.icon;
		if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
	}

	// measure notes the widths of charts and reports whether one has changed.
	function measure() {
		let changed = false;
		for (const node of main.querySelectorAll("[data-chart]")) {
			const id = node.dataset.chart, width = Math.round(node.clientWidth);
			if (width > 0 && widths.get(id) !== width) {
				widths.set(id, width);
				changed = true;
			}
		}
		return changed;
	}
	window.addEventListener("resize", () => render());

	function go() {
		route = readRoute();
		outcome = null;
		if (route.pipeline !== history.id) history = { id: route.pipeline || "", data: null, requested: 0 };
		render();
		requestHistory();
		window.scrollTo(0, 0);
		const heading = main.querySelector("h1");
		if (heading) heading.focus({ preventScroll: true });
	}
	window.addEventListener("popstate", go);
	document.addEventListener("click", (event) => {
		const link = event.target.closest && event.target.closest("a[href]");
		if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.defaultPrevented) return;
		const href = link.getAttribute("href");
		if (!state || (href !== "./" && !href.startsWith("?"))) return;
		event.preventDefault();
		window.history.pushState(null, "", href);
		go();
	});

	// ---- Requests ----

	let interval = 1000; // ms
	let timer = 0, current = null, answered = Date.now(), failures = 0, disconnected = "", reloading = false;
	const limit = () => 3 * interval + 3000;

	function renderStatus() {
		document.body.classList.toggle("old", disconnected !== "");
		const since = state ? clock(new Date(state.at)) : clock(new Date(answered));
		patch(document.getElementById("status"), [
			h("span", { class: "dot", "aria-hidden": "true" }),
			h("span", null, disconnected ? `Disconnected since ${since}: ${disconnected}` : state ? `Live, ${since}` : "Connecting…")]);
		if (!state) return;
		patch(document.querySelector(".process"), [h("strong", null, h("bdi", null, state.title)), " ", h("span", null, "on ", h("bdi", null, state.host), `, process ${state.pid}`)]);
	}

	function disconnect(why) {
		disconnected = why;
		render();
	}

	async function poll() {
		clearTimeout(timer);
		if (current) current.abort();
		if (document.hidden || reloading) return; // visibilitychange goes on
		const request = new AbortController();
		current = request;
		// In two steps: if the page was busy until now, the answer may be here, but not yet read.
		let abort = setTimeout(() => { abort = setTimeout(() => request.abort(), 200); }, limit() - 200);
		try {
			const response = await fetch("state.json", { signal: request.signal, cache: "no-store" });
			if (!response.ok) throw new Error(`status ${response.status}`);
			const next = await response.json();
			if (current !== request) return;
			answered = Date.now();
			failures = 0;
			disconnected = "";
			accept(next);
		} catch (error) {
			if (current !== request) return; // a later request replaced this one
			failures++;
			disconnect(error.name === "AbortError" ? "no answer" : /^status/.test(error.message) ? error.message : error instanceof SyntaxError ? "the answer is not a state" : "no connection");
		} finally {
			clearTimeout(abort);
		}
		if (current !== request) return;
		current = null;
		const backoff = Math.min(15000, 1000 * 2 ** (failures - 1)) * (0.8 + 0.2 * Math.random());
		timer = setTimeout(poll, failures ? backoff : interval);
	}

	function accept(next) {
		if (next.instance !== page.instance && !several(next.instance)) return;
		state = next;
		interval = Math.max(100, next.interval * 1000);
		pipelines = new Map(next.pipelines.map((p) => [p.id, p]));
		policies = new Map(next.policies.map((p) => [p.id, p]));
		render();
		announce();
		requestHistory();
	}

	// several is called with a state of another instance than the page's. The first time, the process
	// was probably restarted, and a reload brings its page and its token. If an instance comes back that
	// this tab has seen before, there are several.
	function several(instance) {
		let seen = [];
		try {
			seen = JSON.parse(sessionStorage.getItem("resilience-instances") || "[]");
		} catch {
			seen = [instance]; // without a memory, a reload could be repeated forever
		}
		if (!seen.includes(instance)) {
			try {
				sessionStorage.setItem("resilience-instances", JSON.stringify([...seen, page.instance, instance].slice(-20)));
				reloading = true;
				location.reload();
				return false;
			} catch {
				// As above.
			}
		}
		const banner = document.getElementById("banner");
		banner.textContent = "Several processes answer at this address, and what is shown alternates between them. Open the dashboard of one process directly.";
		banner.hidden = false;
		return true;
	}

	let announced = null;
	function announce() {
		const what = state.troubles.map((t) => `${t.what} (${t.level})`).sort().join(", ");
		if (announced !== null && announced !== what) document.getElementById("announcement").textContent = what ? `In trouble: ${what}` : "No trouble";
		announced = what;
	}

	async function requestHistory() {
		const id = route.pipeline;
		if (!id || !pipelines.has(id)) return;
		if (history.id !== id) history = { id, data: null, requested: 0 };
		const mine = history;
		const every = Math.max(2000, interval, mine.data ? mine.data.step * 1000 : 0);
		if (Date.now() - mine.requested < every - 100) return;
		mine.requested = Date.now();
		try {
			const response = await fetch("history.json?pipeline=" + encodeURIComponent(id), { cache: "no-store", signal: AbortSignal.timeout(limit()) });
			if (!response.ok) return;
			mine.data = await response.json();
			if (history === mine) render();
		} catch {
			// The next state decides whether there is a connection.
		}
	}

	// A laptop that slept has an old state, and timers that have not fired.
	const overdue = () => !document.hidden && !disconnected && Date.now() - answered > limit();
	function check() {
		if (overdue()) disconnect("no answer");
	}
	setInterval(() => {
		if (overdue()) setTimeout(check, 200); // as above
	}, 1000);
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) return;
		check();
		poll();
	});
	window.addEventListener("pageshow", (event) => {
		if (event.persisted) poll();
	});
	window.addEventListener("online", () => poll());

	render();
	poll();
})();
