/* ips_control.h: the control socket of ipshare-engine, read by compiler and cffi like ips_api.h. */
#ifndef IPS_CONTROL_H
#define IPS_CONTROL_H
#include <stdint.h>
enum ips_ctl_const { IPS_CTL_VERSION = 1 };
#endif
