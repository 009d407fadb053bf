#!/bin/busybox sh
# The first process of a virtual machine: runs what is to be tried, says how it ended, and ends.
/bin/busybox --install -s /bin
# The lesser ones.
rm /bin/ip /bin/tc /bin/ping /bin/ping6
PATH=/usr/bin:/bin
export PATH

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in /modules/*; do
    case $module in
    *.xz) unxz "$module"; module=${module%.xz} ;;
    esac
    insmod "$module" || echo "bulkhead-vm: no $module"
done
ip link set lo up

failed=
# What the console shows of it, and the command.
try() {
    what=$1
    shift
    if "$@"; then
        echo "bulkhead-vm: passed: $what"
    else
        echo "bulkhead-vm: failed: $what"
        failed=yes
    fi
}

echo "bulkhead-vm: Linux $(uname -r)"
try "every program loads" datapath_load --nocapture --test-threads 1
if [ -z "$failed" ]; then
    # bpf_mprog_attach is what TCX is made of.
    if grep -q ' bpf_mprog_attach$' /proc/kallsyms; then
        try "TCX links" netns_attach --test-threads 1
    else
        try "clsact filters" netns_attach_filters --test-threads 1
    fi
    try "the reference scenario (bulkhead demo)" bulkhead-under-test demo --verbose
fi
if [ -z "$failed" ]; then
    echo "bulkhead-vm: result: passed"
else
    echo "bulkhead-vm: result: failed"
fi
poweroff -f
