/* ips_verdict.c: names, texts and dispositions, all from ips_verdict.def. */
#include "ips_core.h"

_Static_assert((int)IPS_N_VERDICTS <= (int)IPS_MAX_VERDICTS, "counters have room for every verdict");

static const struct { const char *name, *text; } verdicts[] = {
#define V(name, disposition, text) [IPS_##name] = {#name, text},
#include "ips_verdict.def"
#undef V
};

int ips_verdict_count(void) { return IPS_N_VERDICTS; }

static bool in_range(int verdict) { return verdict >= 0 && verdict < IPS_N_VERDICTS; }

const char *ips_verdict_name(int verdict) { return in_range(verdict) ? verdicts[verdict].name : NULL; }
const char *ips_verdict_text(int verdict) { return in_range(verdict) ? verdicts[verdict].text : NULL; }
int ips_verdict_disposition(int verdict) { return in_range(verdict) ? ips_dispositions[verdict] : IPS_DROP; }
