"""Impairment of a host's access link: delay, loss, reordering and a bounded rate. In user space, for kernels without netem."""
import errno, heapq, json, os, random, re, select, signal, socket, sys, time

from natlab_core import CLONE_NEWNET, Fail, in_lab, ip, offload_off, setns, sh, start_time

def parse_netem(words):
    spec = {"up": {}, "down": {}, "text": " ".join(words)}
    dirs, w = ("up", "down"), list(words)

    def num(scale):
        m = re.fullmatch(r"([0-9.]+)([a-z%]*)", w.pop(0))
        if not m or m[2] not in scale:
            raise Fail(f"netem: bad value, expected one of {list(scale)}")
        return float(m[1]) * scale[m[2]]

    more = lambda: w and w[0][0].isdigit()
    ms = {"": 1e-3, "ms": 1e-3, "s": 1.0, "us": 1e-6}
    pct = {"": .01, "%": .01}
    try:
        while w:
            k, out = w.pop(0), {}
            if k in ("up", "down", "both"):
                dirs = ("up", "down") if k == "both" else (k,)
                continue
            if k == "delay":
                out["delay"] = num(ms)
                if more():
                    out["jitter"] = num(ms)
                    if w and w[0] in ("normal", "uniform"):
                        out["dist"] = w.pop(0)
            elif k == "loss" and w[0] == "ge":            # Gilbert-Elliott bursts
                w.pop(0)
                out["ge"] = [num(pct), num(pct), num(pct) if more() else 1.0]
            elif k in ("loss", "reorder", "duplicate"):
                out[k] = num(pct)
            elif k == "rate":
                out["rate"] = num({"": 1e3, "kbit": 1e3, "mbit": 1e6, "bit": 1})
            elif k in ("limit", "seed"):
                out[k] = int(num({"": 1}))
            elif k == "jitter-reorders":
                out["fifo"] = False
            else:
                raise Fail(f"netem: unknown word {k!r}")
            for d in dirs:
                spec[d].update(out)
    except IndexError:
        raise Fail("netem: value missing")
    return spec


ARP = b"\x08\x06"


class Pipe:
    """One direction of an impaired link: packets in, (time, packet) out."""
    def __init__(self, way):
        self.way = way                               # so one seed gives two streams
        self.stat = {"in": 0, "lost": 0, "full": 0, "out": 0, "dup": 0, "reordered": 0}
        self.heap, self.seq = [], 0
        self.set({})

    def set(self, c):
        self.c = c
        self.rng = random.Random(f"{self.way}{c['seed']}" if "seed" in c else None)
        self.bad, self.free, self.last = False, 0.0, 0.0

    def lost(self):
        c = self.c
        if "ge" in c:
            p, r, h = c["ge"]
            self.bad = self.rng.random() >= r if self.bad else self.rng.random() < p
            if self.bad and self.rng.random() < h:
                return True
        return "loss" in c and self.rng.random() < c["loss"]

    def push(self, now, pkt):
        c, s = self.c, self.stat
        if pkt[12:14] == ARP:                        # ARP is not what we test
            return self.put(now, pkt)
        s["in"] += 1
        if self.lost():
            s["lost"] += 1
            return
        if len(self.heap) >= c.get("limit", 1000):
            s["full"] += 1
            return
        t = now
        if "rate" in c:                              # drop-tail queue before the wire
            self.free = t = max(now, self.free) + len(pkt) * 8 / c["rate"]
        j, d = c.get("jitter", 0), c.get("delay", 0)
        if j:
            d = max(0, self.rng.gauss(d, j) if c.get("dist") == "normal" else d + self.rng.uniform(-j, j))
        if "reorder" in c and self.rng.random() < c["reorder"]:
            s["reordered"] += 1                      # overtakes what is queued
        else:
            t += d
            if c.get("fifo", True):
                t = self.last = max(t, self.last)
        self.put(t, pkt)
        if "duplicate" in c and self.rng.random() < c["duplicate"]:
            s["dup"] += 1
            self.put(t, pkt)

    def put(self, t, pkt):
        self.seq += 1
        heapq.heappush(self.heap, (t, self.seq, pkt))


def shim(a, b, sock_path):
    """Copy frames between interfaces a (towards the host) and b (towards the bridge)."""
    def raw(dev):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((dev, 3))
        s.setsockopt(263, 23, 1)                     # SOL_PACKET, PACKET_IGNORE_OUTGOING
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.setblocking(False)
        return s
    sa, sb = raw(a), raw(b)
    if os.path.exists(sock_path):
        os.unlink(sock_path)
    ctl = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ctl.bind(sock_path)
    up, down = Pipe("up"), Pipe("down")
    lanes = ((sa, up, sb), (sb, down, sa))
    while True:
        now = time.monotonic()
        wait = min((p.heap[0][0] for _, p, _ in lanes if p.heap), default=now + 60) - now
        ready, _, _ = select.select([sa, sb, ctl], [], [], max(0.0, wait))
        now = time.monotonic()
        for src, pipe, dst in lanes:
            if src in ready:
                for _ in range(64):
                    try:
                        pipe.push(now, src.recv(65536))
                    except OSError as e:
                        if e.errno in (errno.EAGAIN, errno.ENETDOWN):
                            break
                        raise
            while pipe.heap and pipe.heap[0][0] <= now:
                try:
                    pkt = heapq.heappop(pipe.heap)[2]
                    dst.send(pkt)
                    pipe.stat["out"] += pkt[12:14] != ARP
                except OSError:
                    pass                             # link down or receiver full: lost
        if ctl in ready:
            msg, peer = ctl.recvfrom(65536)
            msg = json.loads(msg)
            if msg:
                up.set(msg["up"])
                down.set(msg["down"])
            if peer:
                ctl.sendto(json.dumps({"up": up.stat, "down": down.stat}).encode(), peer)


def shim_call(lab, host, msg):
    path = os.path.join(lab.dir, f"{host}.netem")
    me = f"{path}.{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(me)
        try:
            s.settimeout(3)
            for _ in range(100):
                try:
                    s.sendto(json.dumps(msg).encode(), path)
                    return json.loads(s.recv(65536))
                except (FileNotFoundError, ConnectionRefusedError):
                    time.sleep(0.02)
        finally:
            os.unlink(me)
    raise Fail("netem: the shim did not start; see the log in " + lab.dir)


def cmd_netem(lab, argv):
    if len(argv) < 2:
        raise Fail("usage: natlab netem HOST SPEC|off|show")
    host, words = argv[0], argv[1:]
    n = lab.lock().load().node(host)
    br = "br-public" if n["on"] is None else f"l.{n['on']}"
    a, b, p = f"a.{host}", f"b.{host}", f"p.{host}"
    active = lab.st["netem"].get(host)

    def unwire():
        sh(["sh", "-c", f"ip -n switch link del {b} 2>/dev/null; ip -n switch link set {a} master {br}"])

    if words == ["show"]:
        print(json.dumps({"spec": active["text"], **shim_call(lab, host, {})} if active else {}))
        return 0
    if words == ["off"]:
        if active:
            if start_time(active["pid"]) == active["start"]:
                os.kill(active["pid"], signal.SIGKILL)
            in_lab(lab, unwire)
            del lab.st["netem"][host]
            lab.save()
        return 0
    spec = parse_netem(words)
    if not active:
        def wire():
            unwire()                                 # left-overs of an interrupted command
            ip("switch", [f"link add {b} type veth peer name {p}", f"link set {b} up", f"link set {p} up",
                          f"link set {a} nomaster", f"link set {p} master {br}"])
            offload_off("switch", b)
            offload_off("switch", p)
        in_lab(lab, wire)
        path = os.path.join(lab.dir, f"{host}.netem")
        r, w = os.pipe()
        mid = os.fork()
        if mid == 0:                                 # -> lab's PID namespace -> shim
            code = 1
            try:
                log = os.open(os.path.join(lab.dir, f"{host}.netem.log"), os.O_WRONLY | os.O_CREAT, 0o600)
                os.close(lab._lock)                  # or the shim would hold the lock
                lab.enter(pidns=True)
                kid = os.fork()
                if kid:
                    os.write(w, str(kid).encode())
                    os._exit(0)
                os.close(r), os.close(w)
                os.setsid()
                null = os.open("/dev/null", os.O_RDONLY)
                for x, y in ((null, 0), (log, 1), (log, 2)):
                    os.dup2(x, y)
                setns("/run/netns/switch", CLONE_NEWNET)
                shim(a, b, path)
            except BaseException as e:
                print(f"shim: {e!r}", file=sys.stderr, flush=True)
            os._exit(code)
        os.close(w)
        pid = int(os.read(r, 32) or 0)
        os.waitpid(mid, 0)
        active = {"pid": pid, "start": start_time(pid)}
    try:
        shim_call(lab, host, spec)
    except Fail:
        in_lab(lab, unwire)
        raise
    lab.st["netem"][host] = {**active, "text": spec["text"]}
    lab.save()
    return 0
