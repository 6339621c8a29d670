# What the settings of the ISO, ks_scripts/*.cfg, say of this machine. Read by the programs beside this file, in $cfg.
# shellcheck shell=sh disable=SC2034,SC1091

cfg=${cfg:-/run/live/medium/ks_scripts}

# The console may be hung up by a login that starts: it is opened for each line anew.
say() {
    printf 'imagepool: %s\n' "$*" >>/run/imagepool.log
    for console in /dev/ttyS0 /dev/tty0; do
        { printf 'imagepool: %s\r\n' "$*" >"$console"; } 2>/dev/null || :
    done
}

# read_settings FILE: its values as variables; those of another file are forgotten.
read_settings() {
    IPADDR='' NETMASK='' GATEWAY='' DEVICE='' BOND_DEVICE='' MTU='' NAMESERVER='' HOSTNAME='' IPV6ADDR='' IPV6_DEFAULTGW=''
    BONDING_OPTS='' DHCP='' boot_drives=''
    [ ! -e "$cfg/$1" ] || . "$cfg/$1"
}
