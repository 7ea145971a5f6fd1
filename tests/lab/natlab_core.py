"""What natlab builds a laboratory from: namespaces, the state of a lab on disk, topologies, rules of NATs."""
import array, ctypes, ctypes.util, fcntl, ipaddress, json, os, re, shutil, signal, socket, struct, subprocess, time

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
LIBC = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)

# type -> (mapping, filtering); see RFC 4787 sections 4.1 and 5
TYPES = {
    "full-cone":       ("EIM", "EIF", "endpoint-independent mapping and filtering"),
    "restricted-cone": ("EIM", "ADF", "endpoint-independent mapping, address-dependent filtering"),
    "port-restricted": ("EIM", "APDF", "endpoint-independent mapping, address+port-dependent filtering"),
    "adm":             ("ADM", "APDF", "address-dependent mapping, address+port-dependent filtering"),
    "symmetric":       ("APDM", "APDF", "address+port-dependent mapping (masquerade fully-random)"),
    "linux":           ("PP", "APDF", "stock Linux masquerade: port-preserving, address+port-dependent filtering"),
    "tcp-only":        ("PP", "APDF", "UDP and ICMP blocked, only TCP to ports= (443) leaves"),
    "firewall":        ("NONE", "APDF", "no NAT: routed public prefix behind a stateful firewall"),
}
ALIAS = {"eim-eif": "full-cone", "eim-adf": "restricted-cone", "eim-apdf": "port-restricted",
         "apdm-apdf": "symmetric", "adm-apdf": "adm", "udp-blocked": "tcp-only"}
PORT0, PORTS = 20000, 8192           # external port pool of the hashed mappings


class Fail(Exception):
    pass


# ------------------------------------------------------------------ small helpers
def libc(name, *args):
    if getattr(LIBC, name)(*args) != 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{name}: {os.strerror(e)}")


def mount(src, dst, fstype=None, flags=0):
    b = lambda s: None if s is None else s.encode()
    libc("mount", b(src), b(dst), b(fstype), ctypes.c_ulong(flags), None)


def setns(path, kind):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc("setns", fd, kind)
    finally:
        os.close(fd)


def sh(argv, text=None):
    p = subprocess.run(argv, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise Fail(f"{' '.join(argv)}: {p.stdout.strip()}")
    return p.stdout


def ip(ns, lines):
    """Run many iproute2 commands in one go inside namespace ns."""
    if lines:
        sh(["ip", "-n", ns, "-batch", "-"], "\n".join(lines) + "\n")


class netns:
    """with netns("alice"): ... runs the body in that namespace."""
    def __init__(self, name):
        self.path = f"/run/netns/{name}"

    def __enter__(self):
        self.back = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(self.path, CLONE_NEWNET)

    def __exit__(self, *exc):
        libc("setns", self.back, CLONE_NEWNET)
        os.close(self.back)


def new_netns(name, sysctls=()):
    path = f"/run/netns/{name}"
    open(path, "w").close()
    back = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc("unshare", CLONE_NEWNET)
    mount("/proc/self/ns/net", path, flags=MS_BIND)
    for key, val in (("ipv4/conf/all/rp_filter", 0), ("ipv4/conf/default/rp_filter", 0),
                     ("ipv4/conf/all/send_redirects", 0), ("ipv4/conf/default/send_redirects", 0),
                     ("ipv4/conf/all/accept_redirects", 0), ("ipv4/conf/default/accept_redirects", 0),
                     ("ipv6/conf/all/accept_redirects", 0), ("ipv6/conf/default/accept_redirects", 0),
                     ("ipv6/conf/default/accept_ra", 0), ("ipv4/ping_group_range", "0 0"), *sysctls):
        try:
            with open(f"/proc/sys/net/{key}", "w") as f:
                f.write(str(val))
        except OSError:
            pass                       # optional in this kernel, or not ours to set
    libc("setns", back, CLONE_NEWNET)
    os.close(back)
    ip(name, ["link set lo up"])


def offload_off(ns, dev):
    """Real wire packets: no partial checksums, no super-packets."""
    with netns(ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for cmd in (0x17, 0x1F, 0x24, 0x2C, 0x15):   # STXCSUM STSO SGSO SGRO SRXCSUM
            val = array.array("B", struct.pack("II", cmd, 0))
            req = struct.pack("16sP", dev.encode(), val.buffer_info()[0]) + bytes(16)
            try:
                fcntl.ioctl(s, 0x8946, req)          # SIOCETHTOOL
            except OSError:
                pass


# ------------------------------------------------------------------ state on disk
def state_root():
    base = os.environ.get("NATLAB_DIR")
    if not base:
        base = "/run/natlab" if os.geteuid() == 0 else os.path.join(
            os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/natlab-{os.getuid()}", "natlab")
    os.makedirs(base, mode=0o700, exist_ok=True)
    if os.stat(base).st_uid != os.geteuid():
        raise Fail(f"{base} is owned by someone else; set NATLAB_DIR")
    return base


def start_time(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


class Lab:
    def __init__(self, name):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name) or name.startswith("."):
            raise Fail("bad lab name")
        self.name, self.dir = name, os.path.join(state_root(), name)
        self.file = os.path.join(self.dir, "lab.json")

    def load(self):
        try:
            with open(self.file) as f:
                self.st = json.load(f)
        except FileNotFoundError:
            raise Fail(f"no lab {self.name!r}; natlab up first")
        if start_time(self.st["pid"]) != self.st["start"]:
            raise Fail(f"lab {self.name!r} is dead; natlab up again")
        return self

    def save(self):
        tmp = f"{self.file}.{os.getpid()}"
        with open(tmp, "w") as f:
            json.dump(self.st, f, indent=1)
        os.replace(tmp, self.file)

    def lock(self):
        """Serialise commands that change the lab; released when the process ends."""
        self._lock = os.open(os.path.join(os.path.dirname(self.dir), f".{self.name}.lock"),
                             os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def enter(self, pidns=False):
        p = f"/proc/{self.st['pid']}/ns"
        if self.st["rootless"]:
            setns(f"{p}/user", CLONE_NEWUSER)
        if pidns:
            setns(f"{p}/pid", CLONE_NEWPID)
        setns(f"{p}/net", CLONE_NEWNET)
        setns(f"{p}/mnt", 0)
        return self

    def down(self):
        try:
            with open(self.file) as f:
                st = json.load(f)
        except (FileNotFoundError, ValueError):
            st = None
        if st and start_time(st["pid"]) == st["start"]:
            os.kill(st["pid"], signal.SIGKILL)         # PID 1 of the lab: all goes with it
            end = time.time() + 10
            while start_time(st["pid"]) == st["start"] and time.time() < end:
                with open(f"/proc/{st['pid']}/stat") as f:
                    if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                        break
                time.sleep(0.01)
        shutil.rmtree(self.dir, ignore_errors=True)
        return bool(st)

    def node(self, name):
        n = self.st["nodes"].get(name)
        if not n:
            raise Fail(f"no such host: {name} (have: {', '.join(self.st['nodes'])})")
        return n


# ------------------------------------------------------------------ topology
NAME = re.compile(r"[a-z][a-z0-9-]{0,11}$")


def parse(text):
    top = {"public": "203.0.113.0/24", "ipv6": False, "nodes": {}}
    nodes = top["nodes"]

    def add(name, d):
        if not NAME.match(name):
            raise Fail(f"bad name {name!r}: a-z, 0-9, '-', at most 12 characters")
        if name in nodes or name in ("inet", "switch"):
            raise Fail(f"name used twice or reserved: {name}")
        if d["on"] and nodes.get(d["on"], {}).get("kind") != "nat":
            raise Fail(f"{name}: {d['on']!r} is not a NAT declared above")
        nodes[name] = d

    def nat(name, typ, on, o):
        typ = ALIAS.get(typ, typ)
        if typ not in TYPES:
            raise Fail(f"{name}: unknown NAT type {typ!r}; see natlab types")
        if o.get("hairpin") and TYPES[typ][0] != "EIM":
            raise Fail(f"{name}: hairpin needs full-cone, restricted-cone or port-restricted")
        add(name, {"kind": "nat", "type": typ, "on": on, "timeout": int(o.pop("timeout", 30)),
                   "hairpin": bool(o.pop("hairpin", False)), "lan": o.pop("lan", None),
                   "v6": bool(o.pop("v6", False)), "sip_alg": bool(o.pop("sip-alg", False)),
                   "ports": [int(p) for p in o.pop("ports", "443").split(",")], "seed": 1})

    for n, raw in enumerate(text.replace(";", "\n").split("\n"), 1):
        w = raw.split("#")[0].split()
        if not w:
            continue
        try:
            kind, args = w[0], w[1:]
            on = None
            if "on" in args:
                i = args.index("on")
                on = args[i + 1]
                del args[i:i + 2]
            pos = []
            while args and "=" not in args[0] and args[0] not in ("hairpin", "v6", "sip-alg"):
                pos.append(args.pop(0))
            o = dict(a.split("=", 1) if "=" in a else (a, True) for a in args)
            if kind == "public":
                top["public"] = str(ipaddress.IPv4Network(pos[0]))
            elif kind == "ipv6":
                top["ipv6"] = True
            elif kind == "nat":
                nat(pos[0], pos[1], on, o)
            elif kind == "host":
                ips = int(o.pop("ips", 1))
                if "nat" in o:
                    nat(f"{pos[0]}-nat", o.pop("nat"), on, o)
                    on = f"{pos[0]}-nat"
                add(pos[0], {"kind": "host", "on": on, "ips": ips})
            else:
                raise Fail(f"unknown statement {kind!r}")
            if o:
                raise Fail(f"unknown option {' '.join(o)}")
        except Fail as e:
            raise Fail(f"topology line {n}: {e}")
        except (IndexError, ValueError) as e:
            raise Fail(f"topology line {n}: {raw.strip()!r}: {e}")
    if not nodes:
        raise Fail("empty topology")
    return top


# ------------------------------------------------------------------ NAT rules
def ruleset(n):
    """nftables rules for one NAT box: wan/lan interfaces, n['ip'] outside."""
    mapping, filt, _ = TYPES[n["type"]]
    t, pub, tmo = "{ tcp, udp }", n["ip"], f"timeout {n['timeout']}s"
    D, L = [], []                                     # declarations, chains
    pre, dst, post, fwd = [], [], [], []
    if mapping in ("EIM", "ADM"):
        # External port = hash of the inside endpoint (plus remote address for ADM):
        # the same inside endpoint gets the same port whatever it talks to.
        D += ["map ports { type mark : inet_service; }", "map marks { type inet_service : mark; }"]
        # Who owns an external port now, and whom it has spoken to (the filters).
        dyn = f"flags dynamic,timeout; size 65535; {tmo};"
        D += [f"map inside {{ type mark : ipv4_addr . inet_service; {dyn} }}",
              f"set spoke_a {{ type inet_proto . mark . ipv4_addr; {dyn} }}",
              f"set spoke_ap {{ type inet_proto . mark . ipv4_addr . inet_service; {dyn} }}",
              f"set spoke_hp {{ type inet_proto . mark . mark; {dyn} }}"]
        key = "ip saddr . th sport" + (" . ip daddr" if mapping == "ADM" else "")
        pre += [f"iifname lan meta l4proto {t} meta mark set jhash {key} mod {PORTS} seed {n['seed']:#x} offset {PORT0}",
                f"iifname lan meta l4proto {t} update @inside {{ meta mark : ip saddr . th sport }}",
                f"iifname lan meta l4proto {t} update @spoke_a {{ meta l4proto . meta mark . ip daddr }}",
                f"iifname lan meta l4proto {t} update @spoke_ap {{ meta l4proto . meta mark . ip daddr . th dport }}"]
        ok = {"EIF": "", "ADF": "meta l4proto . meta mark . ip saddr @spoke_a ",
              "APDF": "meta l4proto . meta mark . ip saddr . th sport @spoke_ap "}[filt]
        dst.append(f"iifname wan ip daddr {pub} meta l4proto {t} meta mark set th dport map @marks {ok}dnat to meta mark map @inside")
        if n["hairpin"]:
            # ct mark: sender's external port; meta mark: the addressed external port.
            hp = f"iifname lan ip daddr {pub} meta l4proto {t} "
            pre += [hp + "ct mark set meta mark meta mark set th dport map @marks "
                    "update @spoke_hp { meta l4proto . ct mark . meta mark }"]
            ok = {"EIF": "", "ADF": "meta l4proto . meta mark . ip daddr @spoke_a ",
                  "APDF": "meta l4proto . meta mark . ct mark @spoke_hp "}[filt]
            dst.append(hp + ok + "dnat to meta mark map @inside")
            post.append(f"oifname lan ct status dnat ct mark != 0 meta l4proto {t} snat to {pub} : ct mark map @ports")
        post += [f"oifname wan meta l4proto {t} snat to {pub} : meta mark map @ports",
                 f"oifname wan snat to {pub}"]
    elif mapping == "APDM":
        post.append("oifname wan masquerade fully-random")
    elif mapping == "PP":
        post.append("oifname wan masquerade")
    if n["sip_alg"]:
        D += [f'ct helper sip-{p} {{ type "sip" protocol {p}; }}' for p in ("udp", "tcp")]
        pre += ['udp dport 5060 ct helper set "sip-udp"', 'tcp dport 5060 ct helper set "sip-tcp"']
    if n["type"] == "tcp-only":
        ports = ", ".join(map(str, n["ports"]))
        fwd.append(f"iifname lan oifname wan tcp dport {{ {ports} }} accept")
    else:
        fwd += ["iifname lan oifname wan accept", "iifname lan oifname lan ct status dnat accept"]
    chain = lambda name, hook, rules: L.append(
        f"chain {name} {{ {hook};\n" + "\n".join(rules) + "\n}")
    chain("c_track", "type filter hook prerouting priority mangle; policy accept", pre)
    chain("c_dnat", "type nat hook prerouting priority dstnat", dst)
    chain("c_snat", "type nat hook postrouting priority srcnat", post)
    # Unsolicited packets are dropped, not refused: a confirmed entry for them would
    # steal the tuple a later outbound packet needs and break hole punching.
    chain("c_in", "type filter hook input priority filter; policy drop",
          ["ct state established,related accept", "iifname lo accept", "icmp type echo-request accept"])
    chain("c_fwd", "type filter hook forward priority filter; policy drop",
          ["ct state established,related accept", *fwd,
           "iifname wan oifname lan ct status dnat accept"])
    L6 = ["ct state established,related accept"]
    if n["type"] == "tcp-only":
        L6.append(f"iifname lan tcp dport {{ {ports} }} accept")
    elif n.get("lan6"):
        L6.append("iifname lan accept")
    forget = [f"flush {'map' if s == 'inside' else 'set'} ip natlab {s}"
              for s in ("inside", "spoke_a", "spoke_ap", "spoke_hp")] if mapping in ("EIM", "ADM") else []
    # One transaction; the static port maps, loaded once by load_rules, stay.
    return "\n".join(["table ip natlab {", *D, "}", "table ip6 natlab", "flush table ip natlab",
                      "flush table ip6 natlab", *forget, "table ip natlab {", *L, "}",
                      "table ip6 natlab {\nchain c_fwd { type filter hook forward priority filter; policy drop;",
                      *L6, "}", "}"]) + "\n"


def load_rules(name, n, first=False):
    with netns(name):
        sh(["nft", "-f", "-"], ruleset(n))
        if first and TYPES[n["type"]][0] in ("EIM", "ADM"):
            for lo in range(PORT0, PORT0 + PORTS, 2048):   # small enough for an unprivileged socket buffer
                el = ", ".join(f"{p} : {p}" for p in range(lo, lo + 2048))
                sh(["nft", "-f", "-"], "".join(f"add element ip natlab {m} {{ {el} }}\n" for m in ("ports", "marks")))


def flush_conntrack(name):
    """IPCTNL_MSG_CT_DELETE without a tuple: everything in that namespace."""
    with netns(name), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
        s.send(struct.pack("=IHHIIBBH", 20, (1 << 8) | 2, 5, 1, 0, 0, 0, 0))
        err = struct.unpack_from("=i", s.recv(4096), 16)[0]
        if err:
            raise OSError(-err, "flush conntrack")


# ------------------------------------------------------------------ building
def build(top):
    nodes = top["nodes"]
    pub = ipaddress.IPv4Network(top["public"])
    v6 = top["ipv6"]
    pub6 = ipaddress.IPv6Network("2001:db8::/64")
    lans, sw, inet = {}, [], []
    nets = {None: (pub, pub6 if v6 else None, 9, "br-public")}
    nos6 = [(f"ipv6/conf/{k}/disable_ipv6", 1) for k in ("all", "default")]
    fwd4 = [("ipv4/ip_forward", 1)]
    fwd6 = [("ipv6/conf/all/forwarding", 1)] if v6 else nos6
    new_netns("switch", nos6 + [(f"bridge/bridge-nf-call-{k}", 0) for k in ("iptables", "ip6tables", "arptables")])
    new_netns("inet", fwd4 + fwd6)

    def bridge(name):
        ip("switch", [f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                      f"link set {name} up"])

    def plug(ns, dev, port, br):
        """veth from namespace ns to a port of bridge br."""
        ip("switch", [f"link add {port} type veth peer name {dev} netns {ns}",
                      f"link set {port} master {br}", f"link set {port} up"])
        ip(ns, [f"link set {dev} up"])
        offload_off(ns, dev)
        offload_off("switch", port)

    def take(net_of):
        """Next free address on a segment."""
        net, net6, last, br = nets[net_of]
        last += 1
        if last >= net.num_addresses - 1:
            raise Fail(f"{net} is full")
        nets[net_of] = (net, net6, last, br)
        return str(net[last]), (str(net6[last]) if net6 else None)

    bridge("br-public")
    plug("inet", "eth0", "r.inet", "br-public")
    inet += [f"addr add {pub[1]}/{pub.prefixlen} dev eth0"]
    if v6:
        inet += [f"addr add {pub6[1]}/64 dev eth0 nodad"]
    ip("inet", inet)
    k = 0
    for name, n in nodes.items():
        net, net6, _, br = nets[n["on"]]
        gw, gw6 = str(net[1]), (str(net6[1]) if net6 else None)
        v6here = bool(net6)
        n["port"] = f"a.{name}"
        if n["kind"] == "host":
            new_netns(name, [] if v6here else nos6)
            plug(name, "eth0", n["port"], br)
            got = [take(n["on"]) for _ in range(n["ips"])]
            n["ip"], n["all_ips"] = got[0][0], [g[0] for g in got]
            n["ip6"] = got[0][1]
            cmds = [f"addr add {a}/{net.prefixlen} dev eth0" for a, _ in got]
            cmds += [f"route add default via {gw} src {n['ip']}"]
            if v6here:
                cmds += [f"addr add {a}/64 dev eth0 nodad" for _, a in got]
                cmds += [f"route add default via {gw6}"]
            ip(name, cmds)
            continue
        k += 1
        if n["lan"]:
            lan = ipaddress.IPv4Network(n["lan"])
        elif n["type"] == "firewall":
            lan = ipaddress.IPv4Network(f"198.18.{k}.0/24")
        elif any(m["on"] == name and m["kind"] == "nat" for m in nodes.values()):
            lan = ipaddress.IPv4Network(f"100.64.{k}.0/24")
        else:
            lan = ipaddress.IPv4Network(f"192.168.{k}.0/24")
        lan6 = ipaddress.IPv6Network(f"2001:db8:{k:x}::/64") if v6 and n["v6"] and v6here and n["on"] is None else None
        n["ip"], n["ip6"] = take(n["on"])
        n["lan"], n["lan6"] = str(lan), (str(lan6) if lan6 else None)
        n["ip6"] = n["ip6"] if lan6 else None
        nets[name] = (lan, lan6, 1, f"l.{name}")
        tmo = [(f"netfilter/nf_conntrack_udp_timeout{s}", n["timeout"]) for s in ("", "_stream")]
        new_netns(name, fwd4 + (fwd6 if lan6 else nos6) + tmo + [("netfilter/nf_conntrack_helper", 0)])
        plug(name, "wan", n["port"], br)
        bridge(f"l.{name}")
        plug(name, "lan", f"r.{name}", f"l.{name}")
        ip(name, [f"addr add {n['ip']}/{net.prefixlen} dev wan", f"addr add {lan[1]}/{lan.prefixlen} dev lan",
                  f"route add default via {gw}"])
        if n["type"] == "firewall":
            ip("inet", [f"route add {lan} via {n['ip']}"])
        # The provider side drops private destinations silently, as the Internet does.
        if lan6:
            ip(name, [f"addr add {n['ip6']}/64 dev wan nodad", f"addr add {lan6[1]}/64 dev lan nodad",
                      f"route add default via {gw6}"])
            ip("inet", [f"route add {lan6} via {n['ip6']}"])
        load_rules(name, n, first=True)
    ip("inet", ["route add blackhole default"] + (["route add blackhole ::/0"] if v6 else []))


def hosts_file(nodes):
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for name, n in nodes.items():
        lines.append(f"{n['ip']} {name}")
        if n.get("ip6"):
            lines.append(f"{n['ip6']} {name}")
        lines += [f"{a} {name}-{i}" for i, a in enumerate(n.get("all_ips", [])[1:], 2)]
    return "\n".join(lines) + "\n"


def in_lab(lab, fn):
    """Call fn() inside the lab's namespaces, in a grandchild: Fail carries its message."""
    r, w = os.pipe()
    mid = os.fork()
    if mid == 0:
        code = 1
        try:
            os.close(r)
            lab.enter(pidns=True)
            kid = os.fork()              # the first process really in the PID namespace
            if kid:
                os._exit(1 if os.waitpid(kid, 0)[1] else 0)
            os.write(w, json.dumps(fn()).encode())
            code = 0
        except BaseException as e:
            os.write(w, str(e).encode())
        os._exit(code)
    os.close(w)
    with os.fdopen(r) as f:
        out = f.read()
    if os.waitpid(mid, 0)[1]:
        raise Fail(out)
    return json.loads(out)
