# Settings of /toiso/command.sh. A build command may change them: echo 'hostname=kiosk' >> /toiso/configuration.sh
# shellcheck shell=sh disable=SC2034

# The result: an absolute path. What lies in /toiso is never part of the ISO.
iso_image=/toiso/live.iso

# Name of the medium, up to 32 letters.
volume_id=LIVE

# Name of the booted system.
hostname=live

# Options of mksquashfs: zstd 3 takes seconds, "xz -b 1M" a minute and makes the ISO a quarter smaller.
compression='zstd -Xcompression-level 3'

# Kernel version, as in /boot/vmlinuz-VERSION; empty: the kernel that was installed last.
kernel=

# Kernel command line. nonetworking: live-boot leaves the network to the system, and /etc/network/interfaces as it is.
kernel_options='boot=live nonetworking console=tty0 console=ttyS0,115200'
