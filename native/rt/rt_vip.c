/* rt_vip.c: placeholder. */
#include "rt.h"
void rt_vip_announce(struct rt *rt) { (void)rt; }
void rt_vip_answer(struct rt *rt, uint32_t link, const uint8_t *frame, size_t n) { (void)rt; (void)link; (void)frame; (void)n; }
